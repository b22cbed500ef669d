package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of a node's programs. Its key is in memory only.
type authority struct {
	dir         string
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	serial      int64
}

// writeCertificates writes the authority, the servers' certificates, the key of the service accounts, and a kubeconfig for each program
// that talks to the API server.
func (n *Node) writeCertificates() error {
	a := &authority{dir: filepath.Join(n.dir, "pki")}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	a.key = key
	self := &x509.Certificate{Subject: pkix.Name{CommonName: "the node's authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
	if a.certificate, err = a.sign("ca", self, self, &key.PublicKey); err != nil {
		return err
	}
	server := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.ParseIP(Address), net.ParseIP("127.0.0.1"), net.ParseIP("10.96.0.1")},
		DNSNames:    []string{"localhost", "kubernetes.default.svc", "kubernetes.default.svc." + domain}}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&accounts.PublicKey)
	if err != nil {
		return err
	}
	errs := []error{
		a.issue("server", server),
		a.issue("apiserver", &x509.Certificate{Subject: pkix.Name{Organization: []string{"system:masters"}, CommonName: "kube-apiserver"}}),
		a.writeKey("accounts", accounts),
		a.write("accounts.pub", "PUBLIC KEY", public),
	}
	for user, subject := range map[string]pkix.Name{
		"admin":       {Organization: []string{"system:masters"}, CommonName: "admin"},
		"controllers": {CommonName: "system:kube-controller-manager"},
		"scheduler":   {CommonName: "system:kube-scheduler"},
		"kubelet":     {Organization: []string{"system:nodes"}, CommonName: "system:node:" + Name},
		"proxy":       {CommonName: "system:kube-proxy"},
	} {
		config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: node, cluster: {server: "%s", certificate-authority: %s/ca.crt}}]
users: [{name: user, user: {client-certificate: %s/%s.crt, client-key: %s/%s.key}}]
contexts: [{name: node, context: {cluster: node, user: user}}]
current-context: node
`, apiURL, a.dir, a.dir, user, a.dir, user)
		errs = append(errs, a.issue(user, &x509.Certificate{Subject: subject}),
			os.WriteFile(filepath.Join(n.dir, user+".kubeconfig"), []byte(config), 0o600))
	}
	return errors.Join(errs...)
}

// issue makes a key and a certificate for it.
func (a *authority) issue(name string, of *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	of.KeyUsage = x509.KeyUsageDigitalSignature
	of.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	_, err = a.sign(name, of, a.certificate, &key.PublicKey)
	return errors.Join(err, a.writeKey(name, key))
}

func (a *authority) sign(name string, of, by *x509.Certificate, key *ecdsa.PublicKey) (*x509.Certificate, error) {
	a.serial++
	of.SerialNumber = big.NewInt(a.serial)
	of.NotBefore, of.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(7*24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, of, by, key, a.key)
	if err != nil {
		return nil, err
	}
	if err := a.write(name+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (a *authority) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return a.write(name+".key", "PRIVATE KEY", der)
}

func (a *authority) write(name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
