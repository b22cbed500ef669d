// Command pause is the process of a pod's sandbox: it holds the pod's namespaces until it is told to end. No process of a pod becomes its
// child, since none of ours shares its process namespace.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
