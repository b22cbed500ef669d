package patroni

var Arguments = arguments
