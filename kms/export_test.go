package kms

// The token's form, for the tests that hold it against Talos'.
var (
	EncodeToken = encodeToken
	ReadToken   = readToken
)
