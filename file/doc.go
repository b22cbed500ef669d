// Package file reads files that somebody else writes: configuration, password files, certificates, pid files. It stands below all other
// packages and knows nothing of what is in a file.
//
// [Open] and [Read] take regular files only and never wait for a writer: a named pipe, a device or a directory is an error at once.
// [Walk] tells by which symbolic links a path leads to its file. [Problem] is what is wrong with a file, and where. [Permissions] tells
// who else may read or write a file.
package file
