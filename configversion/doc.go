// Package configversion reads the version of a configuration, and waits until a version has arrived.
//
// # Versions
//
// A version is a whole number that only grows, at most 18 digits. Who changes a configuration raises its version in the same write; who
// wants to be sure that a configuration has arrived waits until the version that is seen is at least the one that was asked for.
//
// [File] is a file that holds nothing but the number: a key of a ConfigMap, a label or annotation of the pod (downward API).
// [Line] is a comment line in the configuration file itself, which travels with what it describes:
//
//	; config-version: 42
//	# config-version: 42
//
// Other places are a [Source] of their own.
//
// # How a file should be written
//
// By rename, as the kubelet does for volumes: then what is read is the old or the new configuration, never a part. A writer that truncates
// first (echo 42 > version) is seen as "not there yet" for a moment, which is harmless: a part of a version is never more than the version.
// But the line in a configuration file that is written in place should be its last, or the version is seen before the rest.
//
// The kubelet never updates a volume that is mounted with subPath (Kubernetes' documentation of ConfigMaps), so no new version arrives
// there.
//
// # Waiting
//
// [Wait] learns of changes from inotify, on the directory of every symbolic link on the way to the file: the kubelet changes a
// volume by renaming the link ..data (source: AtomicWriter, which has always done so). They look once a second besides, so that an event
// that was lost, a directory that was mounted over, or a limit on inotify costs a second, not the answer. Each read is of the whole file:
// its times cannot be trusted to tell two writes within one tick of the kernel's clock (4 ms) apart.
package configversion
