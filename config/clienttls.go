package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/pgbaton/pgbaton/file"
)

const maxCertificates = 1 << 20 // bytes of a file of certificates

// ClientTLS is how a client of ours speaks TLS. ca is a file of authorities, "" means the system's; certificate and key are files of our
// own, both or none. It reads the files, PEM all of them, and does not connect.
func ClientTLS(ca, certificate, key string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := file.Read(ca, maxCertificates)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s: no PEM certificate in it", ca)
		}
	}
	if (certificate == "") != (key == "") {
		return nil, errors.New("a client certificate needs both its certificate file and its key file")
	}
	if certificate == "" {
		return t, nil
	}
	own, err := file.Read(certificate, maxCertificates)
	secret, wrong := file.Read(key, maxCertificates)
	if err = errors.Join(err, wrong); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(own, secret)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	t.Certificates = []tls.Certificate{pair}
	return t, nil
}
