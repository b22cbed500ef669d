package api

// PoolerReport is what was done to one pooler.
type PoolerReport struct {
	Pooler string `json:"pooler"`
	Done   string `json:"done"` // "paused", "resumed", "was not paused", "already paused", "failed"
	Error  string `json:"error,omitempty"`
}
