package config

import "github.com/pgbaton/pgbaton/file"

// PatroniHooks are the programs that Patroni runs for us, as one place of its configuration names them.
type PatroniHooks struct {
	BeforeStop string
	Callbacks  map[string]string // by event, also what Patroni does not know there; nil: the place says nothing of callbacks
}

// ReadPatroniHooks reads them from Patroni's own files: path is what Patroni was started with (see [PatroniFiles]). The errors never show
// what stands in the files.
func ReadPatroniHooks(path string) (PatroniHooks, error) {
	files, err := PatroniFiles(path)
	if err != nil {
		return PatroniHooks{}, err
	}
	merged := patroniSection{}
	for _, name := range files {
		text, err := file.Read(name, MaxPatroniFile)
		if err != nil {
			return PatroniHooks{}, err
		}
		section, err := readPatroniText(name, text)
		if err != nil {
			return PatroniHooks{}, err
		}
		merged.patch(section, 0)
	}
	return merged.hooks(), nil
}

// ParsePatroniHooks reads them from a whole configuration, such as that of the variable PATRONI_CONFIGURATION; an empty one has none. name
// stands for it in errors.
func ParsePatroniHooks(name, text string) (PatroniHooks, error) {
	if text == "" {
		return PatroniHooks{}, nil
	}
	section, err := readPatroniText(name, []byte(text))
	return section.hooks(), err
}

func (s patroniSection) hooks() PatroniHooks {
	hooks := PatroniHooks{BeforeStop: s.text("postgresql", "before_stop")}
	if callbacks := s.at("postgresql", "callbacks"); callbacks != nil && callbacks.section != nil {
		hooks.Callbacks = map[string]string{}
		for event := range callbacks.section {
			if program := callbacks.section.text(event); program != "" {
				hooks.Callbacks[event] = program
			}
		}
	}
	return hooks
}
