// Package awskms stands for a seal that the tests do not use.
package awskms

import wrapping "github.com/hashicorp/go-kms-wrapping/v2"

// The names that Vault's configuration asks for; their values do not matter.
const (
	EnvVaultAwsKmsSealKeyId = "EnvVaultAwsKmsSealKeyId"
	EnvAwsKmsWrapperKeyId   = "EnvAwsKmsWrapperKeyId"
)

// NewWrapper is not called.
func NewWrapper() wrapping.Wrapper { panic("awskms is absent") }

// WithDisallowEnvVars is not used.
func WithDisallowEnvVars(any) wrapping.Option { return func() any { return nil } }

// WithLogger is given to the Shamir seal, which needs none.
func WithLogger(any) wrapping.Option { return func() any { return nil } }
