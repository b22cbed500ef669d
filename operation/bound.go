package operation

import (
	"encoding/json"
	"reflect"

	"github.com/pgbaton/pgbaton/api"
	"github.com/pgbaton/pgbaton/state"
)

// What is kept of what others say.
const (
	maxStepText = 300
	maxDetail   = 2000     // of a decision
	maxOutcome  = 64 << 10 // bytes of JSON
)

// bounded is an outcome of which the file of the operations can hold a hundred: texts and lists are cut until it can.
func bounded(o *api.Outcome) *api.Outcome {
	if o == nil {
		return nil
	}
	var kept api.Outcome
	for _, limit := range []struct{ text, list int }{{500, 200}, {200, 50}, {100, 10}} {
		kept = shortened(reflect.ValueOf(*o), limit.text, limit.list).Interface().(api.Outcome)
		kept.Decision = state.Clip(o.Decision, maxDetail)
		if content, err := json.Marshal(kept); err == nil && len(content) <= maxOutcome {
			return &kept
		}
	}
	kept.Poolers, kept.Reload, kept.Cluster, kept.Check = nil, nil, nil, nil
	return &kept
}

// shortened is a copy of a value, as deep as there are texts and lists in it, with every one of them cut.
func shortened(v reflect.Value, text, list int) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		to := reflect.New(v.Type().Elem())
		to.Elem().Set(shortened(v.Elem(), text, list))
		return to
	case reflect.Struct:
		to := reflect.New(v.Type()).Elem()
		to.Set(v)
		for i := range to.NumField() {
			if to.Field(i).CanSet() {
				to.Field(i).Set(shortened(v.Field(i), text, list))
			}
		}
		return to
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		to := reflect.MakeSlice(v.Type(), min(v.Len(), list), min(v.Len(), list))
		for i := range to.Len() {
			to.Index(i).Set(shortened(v.Index(i), text, list))
		}
		return to
	case reflect.Map:
		to := reflect.MakeMap(v.Type())
		for _, key := range v.MapKeys()[:min(v.Len(), list)] {
			to.SetMapIndex(shortened(key, text, list), shortened(v.MapIndex(key), text, list))
		}
		return to
	case reflect.String:
		return reflect.ValueOf(state.Clip(v.String(), text)).Convert(v.Type())
	}
	return v
}
