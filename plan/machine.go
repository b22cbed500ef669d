package plan

import "fmt"

// State is that of a run, which begins as StatePlanned.
type State string

// States of a run.
const (
	StatePlanned   State = "planned"   // written down; the cluster's lock is not ours yet, nothing is done
	StateChoosing  State = "choosing"  // between two steps: the cluster is looked at anew
	StateStepping  State = "stepping"  // a step is written down, and is done
	StateFollowing State = "following" // the answer to a step was none, or was lost: what became of it is found out
	StateLastStep  State = "last-step" // a step is done, and no other one is to come: it was asked to stop
	StateLastLook  State = "last-look" // as StateLastStep, with the answer lost
	StateFinishing State = "finishing" // all is done; the cluster is looked at for the last time
	StateStopping  State = "stopping"  // the same, after it was asked to stop
	StateFailing   State = "failing"   // the same, after something went wrong or was refused

	// The ends.
	StateDone    State = "done"
	StateStopped State = "stopped" // it was asked to, and everything is as it should be; it can be resumed
	StateFailed  State = "failed"  // it can be resumed
	StateRefused State = "refused" // nothing was begun
	StateAborted State = "aborted" // in the middle of a step; it can be resumed
)

// Event is what happens in a run.
type Event string

// Events.
const (
	EventLock     Event = "lock"     // the cluster's lock is ours
	EventRefuse   Event = "refuse"   // it must not begin, or must not go on
	EventStep     Event = "step"     // a step is written down and begins
	EventDone     Event = "done"     // the step has done what it is for
	EventFail     Event = "fail"     // it has not, and this is known
	EventNothing  Event = "nothing"  // of a run that was resumed: no step was at work, or it had not begun
	EventUnknown  Event = "unknown"  // the answer was lost, or was that it is not known
	EventComplete Event = "complete" // there is no step left
	EventStop     Event = "stop"     // asked to stop after the present step
	EventAbort    Event = "abort"    // asked to stop at once
	EventGood     Event = "good"     // the last look: everything is as it should be
	EventBad      Event = "bad"      // it is not
	EventResume   Event = "resume"   // it was cut off, stopped or failed, and goes on
)

// transitions are those that there are. What is not here is a mistake of whoever drives the run.
func transitions() map[State]map[Event]State {
	return map[State]map[Event]State{
		StatePlanned: {EventLock: StateChoosing, EventRefuse: StateRefused, EventStop: StateRefused, EventAbort: StateRefused,
			EventResume: StatePlanned},
		StateChoosing: {EventStep: StateStepping, EventComplete: StateFinishing, EventRefuse: StateFailing, EventFail: StateFailing,
			EventStop: StateStopping, EventAbort: StateStopped, EventResume: StateChoosing},
		StateStepping: {EventDone: StateChoosing, EventFail: StateFailing, EventUnknown: StateFollowing, EventRefuse: StateFailing,
			EventStop: StateLastStep, EventAbort: StateAborted, EventResume: StateFollowing},
		StateFollowing: {EventDone: StateChoosing, EventNothing: StateChoosing, EventFail: StateFailing, EventUnknown: StateFailing,
			EventStop: StateLastLook, EventAbort: StateAborted, EventResume: StateFollowing},
		StateLastStep: {EventDone: StateStopping, EventFail: StateFailing, EventUnknown: StateLastLook, EventRefuse: StateFailing,
			EventStop: StateLastStep, EventAbort: StateAborted, EventResume: StateFollowing},
		StateLastLook: {
			EventDone:    StateStopping,
			EventNothing: StateStopping,
			EventFail:    StateFailing,
			EventUnknown: StateFailing,
			EventStop:    StateLastLook,
			EventAbort:   StateAborted,
			EventResume:  StateFollowing,
		},
		StateFinishing: {EventGood: StateDone, EventBad: StateFailed, EventStop: StateFinishing, EventAbort: StateStopped,
			EventResume: StateChoosing},
		StateStopping: {EventGood: StateStopped, EventBad: StateFailed, EventStop: StateStopping, EventAbort: StateStopped,
			EventResume: StateChoosing},
		StateFailing: {EventGood: StateFailed, EventBad: StateFailed, EventStop: StateFailing, EventAbort: StateFailed,
			EventResume: StateFollowing},
		StateDone:    {},
		StateRefused: {},
		StateStopped: {EventResume: StateChoosing},
		StateFailed:  {EventResume: StateFollowing},
		StateAborted: {EventResume: StateFollowing},
	}
}

// On returns the state that follows an event. An event that cannot happen in the state is an error, and the state stays.
//
// A run that is resumed goes to StateFollowing wherever a step may have been at work: what became of it is found out first, and it is not
// done again before that.
func (s State) On(e Event) (State, error) {
	next, ok := transitions()[s][e]
	if !ok {
		return s, fmt.Errorf("a run that is %q cannot %q", string(s), string(e))
	}
	return next, nil
}

// Over reports whether nothing is at work, and nothing is to be looked at any more.
func (s State) Over() bool {
	switch s {
	case StateDone, StateStopped, StateFailed, StateRefused, StateAborted:
		return true
	}
	return false
}

// Resumable reports whether a run in this state can be resumed, as it stands in a journal.
func (s State) Resumable() bool {
	_, err := s.On(EventResume)
	return err == nil
}
