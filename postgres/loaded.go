package postgres

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// LoadTime is when this session took over the configuration files (pg_conf_load_time()). It needs no privilege.
//
// Every process of the server reads the files for itself. A new session has the postmaster's time. One that is idle takes the signal
// before its next statement, one that is busy only after it. So who polls for a reload either connects anew for each look, or looks with
// a statement of its own each time, never within a transaction that is one long statement. The time has moved 3 to 10 ms after the SIGHUP
// to the postmaster (17, 18).
//
// It moves too where a part was refused: one bad value, a pg_hba.conf with an error (which is then left as it was), a setting that needs
// a restart. It does not move, and nothing is taken over, where postgresql.conf has a syntax error, an unknown name without a dot or an
// include that cannot be read. [Conn.FileErrors] tells these apart.
func (c *Conn) LoadTime(ctx context.Context) (time.Time, error) {
	r, err := c.value(ctx, "select (extract(epoch from pg_conf_load_time()) * 1000000)::bigint")
	if err != nil {
		return time.Time{}, err
	}
	t := r.time()
	return t, r.err
}

// settingName is what a name in a configuration file may be; nothing in it needs quoting.
var settingName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]{0,62}(\.[A-Za-z_][A-Za-z0-9_$]{0,62}){0,3}$`)
})

func checkName(name string) error {
	if !settingName().MatchString(name) {
		return fmt.Errorf("postgres: %.80q is not the name of a setting", name)
	}
	return nil
}

// Setting is what a setting is in this session, with unit ("16MB"); ok is false where there is none of that name. Custom
// ones (pgbaton.config_version) are settings as others. Some may be read only with pg_read_all_settings: [Denied].
// As with [Conn.LoadTime], connect anew to see what was reloaded.
func (c *Conn) Setting(ctx context.Context, name string) (value string, ok bool, err error) {
	if err := checkName(name); err != nil {
		return "", false, err
	}
	r, err := c.value(ctx, "select current_setting('"+name+"', true)")
	if err != nil {
		return "", false, err
	}
	ok = r.cols[0] != nil
	return r.text(), ok, nil
}

// FileSetting is what the files say on disk now, in the entry that counts, which is the last; loaded or not, and
// as it is written there. ok is false when no file sets it. It needs the rights of [Conn.FileErrors]; a
// [*GrantError] says which are missing.
func (c *Conn) FileSetting(ctx context.Context, name string) (value string, ok bool, err error) {
	if err := checkName(name); err != nil {
		return "", false, err
	}
	if err := c.mayRead(ctx, fileSettings); err != nil {
		return "", false, err
	}
	results, err := c.query(ctx, "select setting from pg_file_settings where lower(name) = lower('"+name+"') order by seqno desc limit 1")
	if err != nil {
		return "", false, err
	}
	r, err := rows(results, 0, 1)
	if err != nil || len(r) == 0 {
		return "", false, err
	}
	return r[0].text(), true, nil
}

// FileSettingNames are the names, in lower case, of all settings in the files as they are on disk now. It needs the rights of
// [Conn.FileErrors]; a [*GrantError] says which are missing. The server reads the files once for it.
func (c *Conn) FileSettingNames(ctx context.Context) (map[string]bool, error) {
	if err := c.mayRead(ctx, fileSettings); err != nil {
		return nil, err
	}
	results, err := c.query(ctx, "select distinct lower(name) from pg_file_settings where name is not null")
	if err != nil {
		return nil, err
	}
	all, err := rows(results, 0, 1)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(all))
	for _, r := range all {
		names[r.text()] = true
	}
	return names, nil
}
