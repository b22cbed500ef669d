package member

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/peer"
)

const (
	maxLabels     = 256 << 10 // bytes of the file; Kubernetes allows 256 KiB for all annotations, and labels are shorter
	maxLabelCount = 1000
)

// Labels are this member's, from serve.labels_file; nil where none is set. The error says what is wrong with the file, and not what is in
// it.
func (m *Member) Labels() (map[string]string, error) {
	path := m.Config.Serve.LabelsFile
	if path == "" {
		return nil, nil
	}
	content, err := file.Read(path, maxLabels)
	if err != nil {
		return nil, fmt.Errorf("serve.labels_file: %w", err)
	}
	labels := map[string]string{}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, quoted, _ := strings.Cut(line, "=")
		value, err := strconv.Unquote(quoted)
		if err != nil || name == "" || peer.Text(name) != name || peer.Text(value) != value || len(labels) == maxLabelCount {
			return nil, fmt.Errorf(`serve.labels_file: %s:%d: it is not one label as NAME="VALUE"`, path, number)
		}
		labels[name] = value
	}
	return labels, nil
}
