package follow

import (
	"fmt"
	"hash/fnv"
	"path/filepath"
	"time"

	"github.com/pgbaton/pgbaton/config"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"
)

// memory is what is known of a pooler when serve is started again.
type memory struct {
	Led   bool      `json:"led"`
	Moved time.Time `json:"moved,omitzero"` // away from its own server
}

func memoryFile(m *member.Member, f *config.Follow) string {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(f.File))
	return filepath.Join(m.Config.StateDir, fmt.Sprintf("follow-%x.json", sum.Sum64()))
}

func recall(m *member.Member, f *config.Follow) (r memory) {
	if m.Config.StateDir != "" {
		_ = state.Read(memoryFile(m, f), &r)
	}
	return r
}

func (x *watched) remember(r memory) {
	if r.Led == x.memory.Led && r.Moved.Equal(x.memory.Moved) {
		return
	}
	x.memory = r
	if x.w.m.Config.StateDir == "" || x.w.m.DryRun {
		return
	}
	if err := state.Write(memoryFile(x.w.m, x.config), r); err != nil {
		x.w.log.Debug("cannot remember where the pooler leads", "error", err)
	}
}
