package follow

import "time"

// Looked counts the looks at all poolers.
func (w *Watcher) Looked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks
}

// SettleIn has new clients taken along, and clients count as moved, for so long only.
func (w *Watcher) SettleIn(lingers, settled time.Duration) { w.lingers, w.settled = lingers, settled }
