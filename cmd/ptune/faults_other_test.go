//go:build !linux

package main

func failing() {}
