// Refclient asks a key server as a Talos node does, with Talos' own definition of
// the service:
//
//	refclient seal|unseal ENDPOINT UUID [CA-FILE] <DATA >ANSWER
//
// ENDPOINT is a URL as in a machine configuration. It is a program of its own since
// no program can link this definition and ours.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/siderolabs/kms-client/api/kms"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 && len(args) != 4 {
		return errors.New("usage: refclient seal|unseal ENDPOINT UUID [CA-FILE] <DATA >ANSWER")
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cc, err := dial(args[1], args[3:])
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // as Talos has it
	defer cancel()
	client, req := kms.NewKMSServiceClient(cc), &kms.Request{NodeUuid: args[2], Data: data}
	var res *kms.Response
	switch args[0] {
	case "seal":
		res, err = client.Seal(ctx, req)
	case "unseal":
		res, err = client.Unseal(ctx, req)
	default:
		err = fmt.Errorf("%q is neither seal nor unseal", args[0])
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(res.GetData())
	return err
}

// dial does as Talos: grpc is plaintext, all else TLS.
func dial(endpoint string, ca []string) (*grpc.ClientConn, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if u.Scheme != "grpc" {
		config := &tls.Config{}
		if len(ca) > 0 {
			bundle, err := os.ReadFile(ca[0])
			if err != nil {
				return nil, err
			}
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM(bundle)
		}
		creds = credentials.NewTLS(config)
	}
	return grpc.NewClient(u.Host, grpc.WithTransportCredentials(creds))
}
