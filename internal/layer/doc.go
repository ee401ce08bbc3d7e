// Package layer turns directories into layer archives and back: whiteouts,
// hard links, extended attributes, compression. A layer's archive made by
// [Write] is a pure function of the directory, so that its digest can be
// promised before the archive is ever stored.
package layer
