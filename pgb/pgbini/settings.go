package pgbini

import (
	"strings"
)

// kind is how PgBouncer reads and shows a setting.
type kind int

const (
	kindUnknown kind = iota
	kindInt
	kindUint
	kindTime
	kindText
	kindName // one of a list
)

var (
	poolModes = []string{"session", "transaction", "statement"}
	sslModes  = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	authTypes = []string{"any", "trust", "plain", "md5", "cert", "hba", "pam", "ldap", "scram-sha-256"}
)

// names are the lists. pam and ldap (since 1.25) are missing in some builds.
var names = map[string][]string{
	"pool_mode": poolModes, "client_tls_sslmode": sslModes, "server_tls_sslmode": sslModes, "auth_type": authTypes,
}

// kinds are the settings of 1.18 to 1.26.
var kinds = func() map[string]kind {
	m := map[string]kind{"max_packet_size": kindUint}
	for k := range names {
		m[k] = kindName
	}
	add := func(kind kind, keys string) {
		for _, k := range strings.Fields(keys) {
			m[k] = kind
		}
	}
	add(kindInt, `application_name_add_host default_pool_size disable_pqexec listen_backlog listen_port log_connections
		log_disconnections log_pooler_errors log_stats max_client_conn max_db_client_connections max_db_connections
		max_prepared_statements max_user_client_connections max_user_connections min_pool_size peer_id pkt_buf query_wait_notify
		reserve_pool_size sbuf_loopcnt scram_iterations server_fast_close server_reset_query_always server_round_robin
		so_reuseport stats_period syslog tcp_defer_accept tcp_keepalive tcp_keepcnt tcp_keepidle tcp_keepintvl
		tcp_socket_buffer tcp_user_timeout unix_socket_mode verbose`)
	add(kindTime, `autodb_idle_timeout cancel_wait_timeout client_idle_timeout client_login_timeout dns_max_ttl dns_nxdomain_ttl
		dns_zone_check_period idle_transaction_timeout pool_idle_timeout query_timeout query_wait_timeout
		reserve_pool_timeout server_check_delay server_connect_timeout server_idle_timeout server_lifetime server_login_retry
		suspend_timeout transaction_timeout`)
	add(kindText, `admin_users auth_dbname auth_file auth_hba_file auth_ident_file auth_ldap_options auth_query auth_user
		client_tls13_ciphers client_tls_ca_file client_tls_cert_file client_tls_ciphers client_tls_dheparams
		client_tls_ecdhcurve client_tls_key_file client_tls_protocols conffile ignore_startup_parameters job_name
		listen_addr logfile login_notify_message pidfile resolv_conf server_check_query server_reset_query
		server_tls13_ciphers server_tls_ca_file server_tls_cert_file server_tls_ciphers server_tls_key_file
		server_tls_protocols stats_users syslog_facility syslog_ident track_extra_parameters unix_socket_dir
		unix_socket_group user`)
	return m
}()

// kept are the settings without a default: taken out of the file, they stay what they were until a restart (1.18, 1.24, 1.26).
var kept = map[string]bool{
	"auth_dbname": true, "auth_file": true, "auth_ident_file": true, "auth_ldap_options": true, "auth_user": true,
	"client_tls13_ciphers": true, "server_tls13_ciphers": true,
}

// elsewhere are the settings that the command line sets, too: not in the file says nothing.
var elsewhere = map[string]bool{"user": true, "verbose": true, "conffile": true}

// Parameters of connection strings, by section, with a setting that came in the same release: which release it is, SHOW CONFIG tells
// by what it has. A parameter without one is of 1.18.
const (
	in119 = "auth_dbname"
	in121 = "max_prepared_statements"
	in123 = "auth_ident_file"
	in124 = "max_db_client_connections"
	in125 = "transaction_timeout"
	in126 = "pool_idle_timeout"
)

var (
	databaseParams = map[string]string{
		"dbname": "", "host": "", "port": "", "user": "", "password": "", "auth_user": "", "client_encoding": "", "datestyle": "",
		"timezone": "", "pool_size": "", "min_pool_size": "", "reserve_pool": "", "max_db_connections": "", "pool_mode": "",
		"connect_query": "", "application_name": "",
		"auth_dbname":     in119,
		"auth_query":      in121, // 1.22, whose settings are those of 1.21: better taken for right there than for wrong here
		"server_lifetime": in123, "load_balance_hosts": in124, "reserve_pool_size": in124, "max_db_client_connections": in124,
		"query_wait_timeout": in126,
	}
	userParams = map[string]string{
		"pool_mode": "", "max_user_connections": "", "pool_size": in123, "reserve_pool_size": in124,
		"client_idle_timeout": in124, "query_timeout": in124, "idle_transaction_timeout": in124,
		"max_user_client_connections": in124, "transaction_timeout": in125, "query_wait_timeout": in126,
	}
	peerParams = map[string]string{"host": "", "port": "", "pool_size": ""}
)
