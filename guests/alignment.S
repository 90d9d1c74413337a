# Alignment checking (SDM Vol. 3A 6.15 #AC: CR0.AM, RFLAGS.AC, CPL 3) and operands that must be aligned at any level (#GP).

#include "kernel.inc"

# At CPL 3 with AC set; the stack is aligned.
.macro AC_FAULTS name:req, insn:vararg
	TRY
	ENTER_USER 0x43002
8701:	\insn
	LEAVE_USER
	END_TRY
	EXPECT "\name", AC, 0, 8701b
.endm
.macro AC_RUNS name:req, insn:vararg
	TRY
	ENTER_USER 0x43002
	\insn
	LEAVE_USER
	END_TRY
	CHECK "\name", fault_vector, $-1
.endm

	.code64
	.globl main
main:
	mov $scratch, %ebx
	mov $scratch, %esi
	OR_CR cr0, CR0_AM
	AC_FAULTS "word at an odd address", mov 1(%rbx), %ax
	AC_FAULTS "doubleword at 2", mov 2(%rbx), %eax
	AC_RUNS "doubleword at 4", mov 4(%rbx), %eax
	AC_FAULTS "quadword at 4", mov 4(%rbx), %rax
	AC_RUNS "quadword at 8", mov 8(%rbx), %rax
	AC_RUNS "byte at 1", mov 1(%rbx), %al
	AC_FAULTS "store of a doubleword at 1", mov %eax, 1(%rbx)
	AC_FAULTS "read-modify-write at 1", incl 1(%rbx)
	AC_FAULTS "locked read-modify-write at 1", lock incl 1(%rbx)
	AC_FAULTS "BT of a doubleword at 1", btl $1, 1(%rbx)
	AC_FAULTS "x87 load of a double at 4", fldl 4(%rbx)
	AC_RUNS "x87 load of a single at 4", flds 4(%rbx)
	AC_FAULTS "MOVSD at 4", movsd 4(%rbx), %xmm0
	lea 1(%rbx), %rsi
	AC_FAULTS "LODSD at 1", lodsl
	lea 3(%rbx), %rdi
	mov $8, %ecx
	AC_FAULTS "REP STOSD at 3", rep stosl
	CHECK "no round was done", %rcx, $8
	AC_RUNS "REP STOSB at 3", rep stosb
	mov $scratch, %edi
	mov $scratch + 65, %esi
	mov $8, %ecx
	AC_FAULTS "REP MOVSW from 1", rep movsw
	# The stack: PUSH, POP, CALL
	TRY
	ENTER_USER 0x43002
	lea -4(%rsp), %rsp
8701:	push %rax
	END_TRY
	EXPECT "PUSH at 4", AC, 0, 8701b
	TRY
	ENTER_USER 0x43002
	lea -12(%rsp), %rsp
8701:	pop %rax
	END_TRY
	EXPECT "POP at 4", AC, 0, 8701b
	# The page fault or #GP of an unaligned access comes as it is where nothing is checked; a missing page behind an unaligned access: #AC first
	AC_FAULTS "unaligned access to a page that is not present", mov TEST + 1, %eax
	# Without AC, AM or below CPL 3 nothing is checked
	USER_RUNS "unaligned without AC", mov 1(%rbx), %eax
	CLEAR_CR cr0, CR0_AM
	AC_RUNS "unaligned without AM", mov 1(%rbx), %eax
	OR_CR cr0, CR0_AM
	pushfq
	orl $FL_AC, (%rsp)
	popfq
	RUNS "unaligned at CPL 0", mov 1(%rbx), %eax
	pushfq
	andl $~FL_AC, (%rsp)
	popfq
	# CPL 3 hot in the TLB before and after
	AC_RUNS "aligned, which fills the TLB", mov (%rbx), %eax
	AC_FAULTS "unaligned with the page in the TLB", mov 2(%rbx), %eax
	# The processor's own accesses are not checked: descriptors, and frames of events from CPL 3
	AC_RUNS "segment load with AC", mov %ss, %eax
	CLEAR_CR cr0, CR0_AM

	# Operands of 16 bytes: #GP(0) at any level, whatever AC (SDM Vol. 2 exception type 1; Vol. 1 10.4.1.1)
	FAULTS "MOVAPS load at 8", GP, 0, movaps 8(%rbx), %xmm0
	FAULTS "MOVAPS store at 8", GP, 0, movaps %xmm0, 8(%rbx)
	FAULTS "MOVDQA at 1", GP, 0, movdqa 1(%rbx), %xmm0
	FAULTS "MOVNTDQ at 8", GP, 0, movntdq %xmm0, 8(%rbx)
	FAULTS "ADDPS at 8", GP, 0, addps 8(%rbx), %xmm0
	FAULTS "PADDB at 8", GP, 0, paddb 8(%rbx), %xmm0
	FAULTS "PXOR at 4", GP, 0, pxor 4(%rbx), %xmm0
	RUNS "MOVUPS at 1", movups 1(%rbx), %xmm0
	RUNS "MOVDQU at 1", movdqu %xmm0, 1(%rbx)
	RUNS "LDDQU at 1", lddqu 1(%rbx), %xmm0
	RUNS "MOVSD at 1", movsd 1(%rbx), %xmm0
	FAULTS "FXSAVE at 8", GP, 0, fxsave 8(%rbx)
	FAULTS "FXRSTOR at 8", GP, 0, fxrstor 8(%rbx)
	FAULTS "CMPXCHG16B at 8", GP, 0, cmpxchg16b 8(%rbx)
	RUNS "CMPXCHG8B at 4", cmpxchg8b 4(%rbx)
	USER_FAULTS "MOVAPS at 8, CPL 3", GP, 0, movaps 8(%rbx), %xmm0
	FAULTS "misaligned goes before a page that is not present", GP, 0, movaps TEST + 8, %xmm0
	ret
