//go:build race

package hostile

// memoryFactor is for the race detector, which takes 5 to 10 times as much memory (go.dev/doc/articles/race_detector).
const memoryFactor = 5

// oneIn: each case is a process, which starts slowly with the race detector; make unit runs all of them without it.
const oneIn = 5
