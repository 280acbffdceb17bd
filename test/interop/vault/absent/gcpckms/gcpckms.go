// Package gcpckms stands for a seal that the tests do not use.
package gcpckms

import wrapping "github.com/hashicorp/go-kms-wrapping/v2"

// The names that Vault's configuration asks for; their values do not matter.
const (
	EnvGcpCkmsWrapperCredsPath   = "EnvGcpCkmsWrapperCredsPath"
	EnvGcpCkmsWrapperProject     = "EnvGcpCkmsWrapperProject"
	EnvGcpCkmsWrapperLocation    = "EnvGcpCkmsWrapperLocation"
	EnvVaultGcpCkmsSealCryptoKey = "EnvVaultGcpCkmsSealCryptoKey"
	EnvGcpCkmsWrapperCryptoKey   = "EnvGcpCkmsWrapperCryptoKey"
	EnvGcpCkmsWrapperKeyRing     = "EnvGcpCkmsWrapperKeyRing"
	EnvVaultGcpCkmsSealKeyRing   = "EnvVaultGcpCkmsSealKeyRing"
)

// NewWrapper is not called.
func NewWrapper() wrapping.Wrapper { panic("gcpckms is absent") }
