// Package apiserver is the Docker Engine API door: route table, middleware, decode, ask, encode.
package apiserver
