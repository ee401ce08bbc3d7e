// Package shimbin carries the skiff-shim executable inside skiffd.
package shimbin
