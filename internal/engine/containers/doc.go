// Package containers runs containers: one file a verb.
//
// A container is declared by a [Record], kept in the database (made with --rm:
// only under the run directory), and is in one [Phase] at a time. Two locks
// guard it: mu, held for moments, for its fields; and its turn, held by the one
// verb that changes what runs (start, exit, pause, rename, remove…), never while
// a client sends or receives. Looking (list, inspect) never waits for a turn.
//
// Exits come from runtime.Events, and only from there: stop, kill and remove
// signal, and wait for the exit to be handled like any other (exit.go).
//
// What this room needs from its neighbours it declares itself, in deps.go;
// internal/daemon adapts.
package containers
