// Package etcd holds what the key server does with a real etcd: the server that
// its authors offer for embedding, started by the tests. It is here because that
// server brings modules that the product must not depend on.
package etcd
