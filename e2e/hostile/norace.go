//go:build !race

package hostile

const memoryFactor = 1
