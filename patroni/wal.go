package patroni

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// wal reads "xlog". What it does not understand is no error: a guard asks for the lock, and must not fail over this.
type wal WAL

func (w *wal) UnmarshalJSON(b []byte) error {
	*w = wal{}
	var a struct {
		Location int64  `json:"location"`
		Received int64  `json:"received_location"`
		Replayed int64  `json:"replayed_location"`
		At       string `json:"replayed_timestamp"`
		Paused   bool   `json:"paused"`
	}
	if json.Unmarshal(b, &a) == nil {
		*w = wal{Written: a.Location, Received: a.Received, Replayed: a.Replayed, ReplayedAt: pythonTime(a.At), ReplayPaused: a.Paused}
	}
	return nil
}

// tags are a member's; something else than an object is none, and so is one of more than maxTags: decoded, a "{}" takes 100 times as much
// memory as its text.
type tags map[string]any

const maxTags = 100 // real members have at most a dozen

func (t *tags) UnmarshalJSON(b []byte) error {
	*t = nil
	d := json.NewDecoder(bytes.NewReader(b))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil
	}
	all := tags{}
	for d.More() {
		if len(all) == maxTags {
			return nil
		}
		name, err := d.Token()
		if err != nil {
			return nil
		}
		key, ok := name.(string)
		var value any
		if err := d.Decode(&value); err != nil || !ok {
			return nil
		}
		all[key] = value
	}
	*t = all
	return nil
}

// pythonTime reads what Python's str and isoformat make of a time with an offset: "2026-11-30 09:15:01.123456+00:00", with or without the
// microseconds, and with the offset "+00" that a server writes (2.1, which asked for text). Zero: it is none of them.
func pythonTime(s string) time.Time {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t
		}
	}
	return time.Time{}
}
