// Package cloudsqlconn stands for the dialer of a database that the tests do not use.
package cloudsqlconn

// Option and DialOption are not used.
type (
	Option     struct{}
	DialOption struct{}
)

// None of these is called.
func WithIAMAuthN() Option                        { return Option{} }
func WithCredentialsJSON([]byte) Option           { return Option{} }
func WithDefaultDialOptions(...DialOption) Option { return Option{} }
func WithPrivateIP() DialOption                   { return DialOption{} }
func WithPSC() DialOption                         { return DialOption{} }
