package lab

import "reflect"

// KickEntry returns the address of the function that every kick of every Simulation of this process calls once, so that
// a uprobe counts the same kicks. Only its entry may be probed: Go moves stacks, which return probes do not survive.
func KickEntry() uintptr { return reflect.ValueOf((*Simulation).kick).Pointer() }
