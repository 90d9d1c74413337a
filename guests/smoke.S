#include "kernel.inc"
	.code64
	.globl main
main:
	CHECK "one is one", $1, $1
	FAULTS "ud2", UD, NONE, ud2
	FAULTS "page fault", PF, 2, movl $0, TEST
	USER_FAULTS "user page fault", PF, 6, movl $0, TEST
	USER_RUNS "user nop", nop
	ret
