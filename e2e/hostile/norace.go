//go:build !race

package hostile

const (
	memoryFactor = 1
	oneIn        = 1
)
