package pgbini

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"sync"
)

const hidden = "***"

// hide is what is shown of a secret; that there is none may be seen.
func hide(value string) string {
	if value == "" {
		return ""
	}
	return hidden
}

// mayHoldSecret tells it by the name: auth_ldap_options has ldapbindpasswd in it.
func mayHoldSecret(key string) bool {
	key = strings.ToLower(key)
	for _, part := range []string{"pass", "secret", "ldap", "token", "credential"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return false
}

// digest tells two secrets apart without keeping them. The key is this process's own, so that a digest is of no
// use to anybody else.
type digest [sha256.Size]byte

var digestKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // does not fail (crypto/rand)
	return key
})

func digestOf(secret string) digest {
	mac := hmac.New(sha256.New, digestKey())
	mac.Write([]byte(secret))
	return digest(mac.Sum(nil))
}
