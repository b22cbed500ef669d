package patroni

import (
	"errors"
	"io/fs"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/config/yamlfile"
	"github.com/pgbaton/pgbaton/file"
)

// CheckConfig returns a [*file.Problem] where Patroni cannot load its configuration: a file, or a folder of which it reads every *.yml
// and *.yaml. Patroni itself tells nobody: it logs what is wrong, goes on with the configuration that it had, and reloads the server
// with that (config.py, 4.0.7 and 4.1.5).
//
// nil is not the promise that Patroni takes it: its values are not looked at.
func CheckConfig(path string) error {
	files, err := config.PatroniFiles(path)
	if err != nil {
		return unreadable(path, err)
	}
	for _, name := range files {
		text, err := file.Read(name, config.MaxPatroniFile)
		if err != nil {
			return unreadable(name, err)
		}
		document, err := yamlfile.Parse(name, text)
		if err == nil {
			err = document.CheckPython(text)
		}
		if err != nil {
			return err
		}
		if document.Root.IsNull() {
			return &file.Problem{File: name, Problem: "has no configuration in it"}
		}
		if _, ok := document.Root.Mapping(); !ok {
			return &file.Problem{File: name, Problem: "has no \"key: value\" at its top"}
		}
	}
	if len(files) == 0 {
		return &file.Problem{File: path, Problem: "has no *.yml or *.yaml in it"}
	}
	return nil
}

func unreadable(path string, err error) error {
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err // the path is told already
	}
	return &file.Problem{File: path, Problem: "cannot be read: " + err.Error(), Err: err}
}
