package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs certificates. Everything it makes is a pair of files NAME.crt and NAME.key in its directory.
type authority struct {
	directory   string
	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// subject is whom a certificate is for.
type subject struct {
	name          string // of the files
	user          string // common name
	organizations []string
	addresses     []string
	hosts         []string // a server's names; without names and addresses the certificate is a client's
}

func newAuthority(directory, name string) (*authority, error) {
	a := &authority{directory: directory, name: name}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	var err error
	a.key, a.certificate, err = a.write(name, template)
	return a, err
}

// issue writes a certificate and its key.
func (a *authority) issue(s subject) error {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.user, Organization: s.organizations},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		DNSNames:    s.hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, address := range s.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	if len(s.hosts)+len(s.addresses) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	_, _, err := a.write(s.name, template)
	return err
}

// write makes a key, has its certificate signed (by itself, if there is no authority yet) and writes both.
func (a *authority) write(name string, template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	if err := writePEM(filepath.Join(a.directory, name+".crt"), "CERTIFICATE", der); err != nil {
		return nil, nil, err
	}
	if err := writeKey(filepath.Join(a.directory, name), key); err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return key, certificate, err
}

// writeKey writes PATH.key and, for those who check tokens, PATH.pub.
func writeKey(path string, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(path+".key", "PRIVATE KEY", private); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return writePEM(path+".pub", "PUBLIC KEY", public)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
