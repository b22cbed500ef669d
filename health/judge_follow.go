package health

// judgeFollow is about a pooler that is moved to the leader.
func judgeFollow(f *findings, v view, pooler string, more poolerFurther) {
	if more.follow.Elsewhere {
		return
	}
	if more.unmovable != nil {
		f.add("follow-file", pooler, "mend the file, or follow in the entry of poolers", "pooler %s cannot be moved: %v", pooler,
			more.unmovable)
	}
	others := !v.config.Apart() && v.further.cluster != nil && len(v.further.cluster.Members) > 1
	for _, p := range v.config.Poolers {
		others = others && (p.Follow == nil || !p.Follow.Elsewhere)
	}
	if others {
		f.add("follow-alone", pooler, "add an entry with the poolers of all members and follow: {elsewhere: true}",
			"no pooler of another member is in poolers")
	}
}
