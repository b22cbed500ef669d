// Package plan decides planned maintenance of a Patroni cluster: who is to be primary, in which order members are restarted, and when a run
// has to wait, or must not go on. It does nothing itself: every function is a pure one of a [View], which whoever does the work reads anew
// before each step.
//
// [Restart] and [Switchover] say what is to be done as far as it can be told now. [Next] says what the next step is, from what was done and
// from the cluster as it is at that moment: a plan is a forecast, and only Next is followed. One member is at work at a time, and there is
// one switchover in a run at most.
//
// What Patroni does is from its source (api.py, ha.py, postgresql/config.py; 4.0.7).
package plan
