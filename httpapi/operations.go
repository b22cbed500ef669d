package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/operation"
)

// wire is an operation as it is answered.
func wire(o operation.Operation) api.Operation {
	return api.Operation{
		ID:      o.ID,
		Member:  o.Member,
		Kind:    o.Kind,
		Run:     o.Run,
		State:   o.State,
		Caller:  o.Caller,
		Request: o.Request,
		Created: o.Created,
		Started: o.Started,
		Ended:   o.Ended,
		Result:  o.Result,
		Problem: failed(o),
		Steps:   o.Steps,
	}
}

// demand is what a POST asks for.
func demand(ctx context.Context, key string, request api.OperationRequest) operation.Demand {
	return operation.Demand{Caller: callerOf(ctx).name, Request: request, Key: key, Body: bodyOf(ctx)}
}

// notBegun is the problem with which an operation is not begun.
func notBegun(err error) error {
	var running *operation.RunningError
	var unsaved *operation.UnsavedError
	switch {
	case errors.Is(err, operation.ErrEnding):
		return shuttingDown.problem("serve is shutting down: no operation is started any more").retryAfter(5 * time.Second)
	case errors.Is(err, operation.ErrKeyReused):
		return keyReused.problem("this Idempotency-Key was used within 24 h for another path or body")
	case errors.Is(err, operation.ErrForgotten):
		return operationForgotten.problem("this Idempotency-Key was used within 24 h, and its operation is not among the newest any more")
	case errors.As(err, &running):
		at := api.OperationPath(running.Operation.ID)
		p := operationRunning.problem(running.Error()).header("Location", at).retryAfter(2 * time.Second)
		p.Operation = at
		return p
	case errors.As(err, &unsaved):
		return stateNotKept.problem("the operation was not begun; the log has more").retryAfter(5 * time.Second)
	}
	return err
}

// accepted answers where an operation is that was begun.
func (s *Server) accepted(o operation.Operation, err error) (*operationOutput, error) {
	if err != nil {
		return nil, notBegun(err)
	}
	return located(o, http.StatusAccepted), nil
}

func located(o operation.Operation, status int) *operationOutput {
	return &operationOutput{Status: status, Location: api.OperationPath(o.ID), Body: wire(o)}
}

func (s *Server) postResume(ctx context.Context, in *PostInput) (*operationOutput, error) {
	d := demand(ctx, in.IdempotencyKey, api.OperationRequest{})
	d.Body = nil // which is not looked at
	o, err := s.operations.Resume(d)
	if err != nil {
		return nil, notBegun(err)
	}
	// Not until the client's end: one that has closed its half of the connection still reads.
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.resumeWait)
	defer cancel()
	if now, kept := s.operations.Wait(waiting, o.ID); kept {
		o = now
	} else { // forgotten in the same moment
		o.State = api.Unknown
	}
	if o.State == api.Succeeded {
		return located(o, http.StatusOK), nil
	}
	problem := failed(o)
	if problem == nil {
		return located(o, http.StatusAccepted), nil
	}
	// It was counted with the operation.
	p := &refusal{Problem: *problem, counted: true, headers: http.Header{"Location": {api.OperationPath(o.ID)}}}
	if p.Class == api.Transient {
		p.retryAfter(time.Second)
	}
	return nil, p
}

func (s *Server) noOperation() *refusal {
	return operationNotFound.problem(
		fmt.Sprintf("this is the server of member %s, which has no such operation; only the server of the member that "+
			"accepted an operation knows it (see its \"member\"); it keeps the newest %d, and for %s those that have ended",
			s.member.Name(), operation.MaxOperations, operation.KeepFor),
	)
}
