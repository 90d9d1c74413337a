# LOCK: #UD on what takes none, and on register destinations (SDM Vol. 2A LOCK).

#include "kernel.inc"

.macro LOCK_UD name:req, bytes:vararg
	FAULTS "LOCK \name", UD, NONE, .byte 0xf0, \bytes
.endm
.macro LOCK_RUNS name:req, insn:vararg
	RUNS "LOCK \name", lock \insn
.endm

	.code64
	.globl main
main:
	mov $scratch, %ebx
	xor %eax, %eax
	xor %edx, %edx
	xor %ecx, %ecx
	# Everything that takes it, with a memory destination
	LOCK_RUNS "ADD", addl %ecx, (%rbx)
	LOCK_RUNS "ADC", adcl %ecx, (%rbx)
	LOCK_RUNS "AND", andl $1, (%rbx)
	LOCK_RUNS "OR", orb $1, (%rbx)
	LOCK_RUNS "SBB", sbbl %ecx, (%rbx)
	LOCK_RUNS "SUB", subw $1, (%rbx)
	LOCK_RUNS "XOR", xorq %rcx, (%rbx)
	LOCK_RUNS "BTC", btcl %ecx, (%rbx)
	LOCK_RUNS "BTR", btrl $3, (%rbx)
	LOCK_RUNS "BTS", btsq %rcx, (%rbx)
	LOCK_RUNS "CMPXCHG", cmpxchg %ecx, (%rbx)
	LOCK_RUNS "CMPXCHG8B", cmpxchg8b (%rbx)
	LOCK_RUNS "CMPXCHG16B", cmpxchg16b (%rbx)
	LOCK_RUNS "DEC", decl (%rbx)
	LOCK_RUNS "INC", incl (%rbx)
	LOCK_RUNS "NEG", negl (%rbx)
	LOCK_RUNS "NOT", notl (%rbx)
	LOCK_RUNS "XADD", xadd %ecx, (%rbx)
	LOCK_RUNS "XCHG", xchg %ecx, (%rbx)
	# With a register destination
	LOCK_UD "ADD with a register", 0x01, 0xc8
	LOCK_UD "ADD from memory to a register", 0x03, 0x03
	LOCK_UD "INC of a register", 0xff, 0xc0
	LOCK_UD "XCHG of registers", 0x87, 0xc8
	LOCK_UD "XCHG with the accumulator", 0x91
	LOCK_UD "CMPXCHG of registers", 0x0f, 0xb1, 0xc8
	LOCK_UD "XADD of registers", 0x0f, 0xc1, 0xc8
	LOCK_UD "BTS of a register", 0x0f, 0xab, 0xc8
	LOCK_UD "NEG of a register", 0xf7, 0xd8
	# On what takes none
	LOCK_UD "NOP", 0x90
	LOCK_UD "MOV to memory", 0x89, 0x03
	LOCK_UD "MOV from memory", 0x8b, 0x03
	LOCK_UD "CMP", 0x39, 0x03
	LOCK_UD "CMP with an immediate", 0x83, 0x3b, 0x01
	LOCK_UD "TEST", 0x85, 0x03
	LOCK_UD "TEST with an immediate", 0xf6, 0x03, 0x01
	LOCK_UD "BT", 0x0f, 0xa3, 0x0b
	LOCK_UD "BT with an immediate", 0x0f, 0xba, 0x23, 0x01
	LOCK_UD "MUL", 0xf7, 0x23
	LOCK_UD "SHL", 0xd1, 0x23
	LOCK_UD "ROL", 0xc1, 0x03, 0x01
	LOCK_UD "SHLD", 0x0f, 0xa5, 0x0b
	LOCK_UD "IMUL", 0x0f, 0xaf, 0x03
	LOCK_UD "PUSH from memory", 0xff, 0x33
	LOCK_UD "POP to memory", 0x8f, 0x03
	LOCK_UD "CALL through memory", 0xff, 0x13
	LOCK_UD "JMP through memory", 0xff, 0x23
	LOCK_UD "LEA", 0x8d, 0x03
	LOCK_UD "SETcc", 0x0f, 0x94, 0x03
	LOCK_UD "CMOVcc", 0x0f, 0x44, 0x03
	LOCK_UD "MOVSB", 0xa4
	LOCK_UD "STOSB", 0xaa
	LOCK_UD "MOVZX", 0x0f, 0xb6, 0x03
	LOCK_UD "BSF", 0x0f, 0xbc, 0x03
	LOCK_UD "MOVNTI", 0x0f, 0xc3, 0x03
	LOCK_UD "MOVAPS", 0x0f, 0x28, 0x03
	LOCK_UD "FLD", 0xd9, 0x03
	LOCK_UD "CLI", 0xfa
	LOCK_UD "HLT", 0xf4
	LOCK_UD "INT3", 0xcc
	LOCK_UD "RET", 0xc3
	LOCK_UD "JMP", 0xeb, 0x00
	LOCK_UD "Jcc", 0x74, 0x00
	LOCK_UD "CPUID", 0x0f, 0xa2
	LOCK_UD "RDTSC", 0x0f, 0x31
	LOCK_UD "WRMSR", 0x0f, 0x30
	LOCK_UD "LGDT", 0x0f, 0x01, 0x13
	LOCK_UD "INVLPG", 0x0f, 0x01, 0x3b
	LOCK_UD "FXSAVE", 0x0f, 0xae, 0x03
	LOCK_UD "CLFLUSH", 0x0f, 0xae, 0x3b
	LOCK_UD "UD2", 0x0f, 0x0b
	# The order of prefixes does not matter; #UD is decided before a privilege check or a page fault
	FAULTS "LOCK behind another prefix", UD, NONE, .byte 0x66, 0xf0, 0x89, 0x03
	USER_FAULTS "LOCK HLT at CPL 3", UD, NONE, .byte 0xf0, 0xf4
	mov $TEST, %ebx
	FAULTS "LOCK MOV to a page that is not present", UD, NONE, .byte 0xf0, 0x89, 0x03
	FAULTS "LOCK ADD to a page that is not present", PF, 2, lock addl $1, (%rbx)
	ret
