// Package azurekeyvault stands for a seal that the tests do not use.
package azurekeyvault

import wrapping "github.com/hashicorp/go-kms-wrapping/v2"

// The names that Vault's configuration asks for; their values do not matter.
const (
	EnvAzureKeyVaultWrapperKeyName   = "EnvAzureKeyVaultWrapperKeyName"
	EnvVaultAzureKeyVaultKeyName     = "EnvVaultAzureKeyVaultKeyName"
	EnvAzureKeyVaultWrapperVaultName = "EnvAzureKeyVaultWrapperVaultName"
	EnvVaultAzureKeyVaultVaultName   = "EnvVaultAzureKeyVaultVaultName"
)

// NewWrapper is not called.
func NewWrapper() wrapping.Wrapper { panic("azurekeyvault is absent") }

// WithDisallowEnvVars is not used.
func WithDisallowEnvVars(any) wrapping.Option { return func() any { return nil } }
