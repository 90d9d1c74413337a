# Page faults of 4-level paging: error codes and CR2 (SDM Vol. 3A 4.6, 4.7), and that an instruction which faults changes nothing
# (SDM Vol. 3A 6.6 "Program or task restart").

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)

.macro CR2_IS name:req, want:req
	CHECK "\name", fault_cr2, $\want
.endm

	.code64
	.globl main
main:
	call codes
	call restarts
	call strings
	ret

codes:
	# SDM Vol. 3A figure 4-12: P, W/R, U/S, RSVD, I/D
	UNMAP 0
	FAULTS "read of a page that is not present", PF, 0, mov PAGE(0) + 0x123, %al
	CR2_IS "CR2 is the address", PAGE(0) + 0x123
	FAULTS "write to a page that is not present", PF, 2, mov %al, PAGE(0)
	FAULTS "read-modify-write reports a write", PF, 2, addl $1, PAGE(0)
	FAULTS "comparison reports a read", PF, 0, cmpl $1, PAGE(0)
	FAULTS "XCHG reports a write", PF, 2, xchg %eax, PAGE(0)
	FAULTS "CMPXCHG reports a write", PF, 2, cmpxchg %ecx, PAGE(0)
	FAULTS "CMPXCHG16B reports a write", PF, 2, cmpxchg16b PAGE(0)
	FAULTS "BT reports a read", PF, 0, btl $1, PAGE(0)
	FAULTS "BTS reports a write", PF, 2, btsl $1, PAGE(0)
	RUNS "a prefetch does not fault", prefetcht0 PAGE(0)
	FAULTS "CLFLUSH reports a read", PF, 0, clflush PAGE(0)
	MAP 0, test_pages, P
	FAULTS "supervisor write to a read-only page with CR0.WP", PF, 3, mov %al, PAGE(0)
	RUNS "supervisor read of a supervisor page", mov PAGE(0), %al
	USER_FAULTS "user read of a supervisor page", PF, 5, mov PAGE(0), %al
	USER_FAULTS "user write to a supervisor page", PF, 7, mov %al, PAGE(0)
	MAP 0, test_pages, (P | U)
	USER_RUNS "user read of a read-only page", mov PAGE(0), %al
	USER_FAULTS "user write to a read-only page", PF, 7, mov %al, PAGE(0)
	UNMAP 0
	USER_FAULTS "user read of a page that is not present", PF, 4, mov PAGE(0), %al
	USER_FAULTS "user write to a page that is not present", PF, 6, mov %al, PAGE(0)
	# Rights are the AND of all levels (SDM Vol. 3A 4.6.1)
	MAP 0, test_pages, (P | U | W)
	USER_RUNS "user write where all levels allow it", mov %al, PAGE(0)
	andl $~W, test_pd
	invlpg PAGE(0)
	USER_FAULTS "user write with a read-only directory entry", PF, 7, mov %al, PAGE(0)
	FAULTS "supervisor write with a read-only directory entry", PF, 3, mov %al, PAGE(0)
	orl $W, test_pd
	andl $~U, test_pd
	invlpg PAGE(0)
	USER_FAULTS "user read with a supervisor directory entry", PF, 5, mov PAGE(0), %al
	RUNS "supervisor write with a supervisor directory entry", mov %al, PAGE(0)
	orl $U, test_pd
	andl $~P, test_pd
	invlpg PAGE(0)
	FAULTS "directory entry that is not present", PF, 2, mov %al, PAGE(0)
	orl $P, test_pd
	invlpg PAGE(0)
	# Supervisor writes ignore W while CR0.WP is clear
	MAP 0, test_pages, P
	CLEAR_CR cr0, CR0_WP
	RUNS "supervisor write to a read-only page without CR0.WP", mov %al, PAGE(0)
	MAP 0, test_pages, (P | U)
	RUNS "supervisor write to a read-only user page without CR0.WP", mov %al, PAGE(0)
	USER_FAULTS "user write to a read-only page without CR0.WP", PF, 7, mov %al, PAGE(0)
	OR_CR cr0, CR0_WP
	FAULTS "setting CR0.WP ends the cached right", PF, 3, mov %al, PAGE(0)
	# Instruction fetches: I/D is reported with IA32_EFER.NXE or CR4.SMEP
	UNMAP 1
	TRY
	mov $PAGE(1), %eax
	jmp *%rax
	END_TRY
	EXPECT "fetch from a page that is not present", PF, 0x10, PAGE(1)
	CR2_IS "CR2 of a fetch", PAGE(1)
	TRY
	ENTER_USER
	mov $PAGE(1) + 7, %eax
	call *%rax
	END_TRY
	EXPECT "user fetch from a page that is not present", PF, 0x14, PAGE(1) + 7
	CR2_IS "CR2 of a user fetch", PAGE(1) + 7
	movb $0xc3, test_pages
	MAP 1, test_pages, (P | W | U | NX)
	TRY
	mov $PAGE(1), %eax
	call *%rax
	END_TRY
	EXPECT "fetch from a page with NX", PF, 0x11, PAGE(1)
	TRY
	ENTER_USER
	mov $PAGE(1), %eax
	call *%rax
	END_TRY
	EXPECT "user fetch from a page with NX", PF, 0x15, PAGE(1)
	RUNS "data access to a page with NX", mov %al, PAGE(1) + 8
	MAP 1, test_pages, (P | W)
	TRY
	ENTER_USER
	mov $PAGE(1), %eax
	call *%rax
	END_TRY
	EXPECT "user fetch from a supervisor page", PF, 0x15, PAGE(1)
	MAP 1, test_pages, (P | W | U)
	TRY
	mov $PAGE(1), %eax
	call *%rax
	END_TRY
	CHECK "fetch that is allowed", fault_vector, $-1
	# Accesses of the processor itself have supervisor rights at any CPL (SDM Vol. 3A 4.6.1)
	MAP 0, idt64, (P | W)
	movw $4095, scratch
	movq $PAGE(0), scratch + 2
	lidt scratch
	USER_FAULTS "event delivery reads an IDT that the user may not", UD, NONE, ud2
	lidt idt64_pointer
	# A descriptor that CPL 3 loads is read by the processor itself: U/S is clear in the error code
	DESCRIPTOR FREE, 0x4000820010000fff
	movq $0, gdt + FREE + 8
	mov $FREE, %ecx
	lldt %cx
	mov $0xf, %ecx
	UNMAP 1
	USER_FAULTS "descriptor in a page that is not present, at CPL 3", PF, 0, mov %ecx, %es
	CR2_IS "CR2 of the descriptor", PAGE(1)+8
	mov gdt + 0x38, %rax
	btr $40, %rax
	mov %rax, test_pages + 8
	MAP 1, test_pages, P
	USER_FAULTS "its accessed bit in a read-only page", PF, 3, mov %ecx, %es
	MAP 1, test_pages, (P | W)
	USER_RUNS "descriptor in a supervisor page, at CPL 3", mov %ecx, %es
	mov test_pages + 8, %rax
	bt $40, %rax
	setc %al
	movzbl %al, %eax
	CHECK "its accessed bit", %rax, $1
	mov $DATA, %ecx
	mov %ecx, %es
	xor %ecx, %ecx
	lldt %cx
	ret

# What faults leaves registers, memory and flags as they were; CR2 names the byte that could not be reached.
restarts:
	MAP 2, test_pages, (P | W | U)
	UNMAP 3
	movq $0, test_pages + 0xff8
	mov $0x1122334455667788, %rax
	FAULTS "store across a page end", PF, 2, mov %rax, PAGE(2) + 0xffc
	CR2_IS "CR2 is the first byte of the second page", PAGE(3)
	CHECK "nothing was stored in the first page", test_pages + 0xff8, $0
	FAULTS "load across a page end", PF, 0, mov PAGE(2) + 0xffd, %ecx
	CR2_IS "CR2 of a load is the first byte of the second page", PAGE(3)
	MAP 3, test_pages + 4096, (P | U)
	FAULTS "store across into a read-only page", PF, 3, mov %rax, PAGE(2) + 0xfff
	CR2_IS "CR2 of the read-only page", PAGE(3)
	CHECK "nothing was stored before the read-only page", test_pages + 0xff8, $0
	FAULTS "read-modify-write across into a read-only page", PF, 3, addq $1, PAGE(2) + 0xffa
	CHECK "nothing was added", test_pages + 0xff8, $0
	UNMAP 2
	FAULTS "store whose first page is missing", PF, 2, mov %rax, PAGE(2) + 0xffc
	CR2_IS "CR2 is the address of the store", PAGE(2) + 0xffc
	FAULTS "16-byte store whose first page is missing", PF, 2, movups %xmm0, PAGE(2) + 0xff8
	CR2_IS "CR2 of the 16-byte store", PAGE(2) + 0xff8
	MAP 2, test_pages, (P | W | U)
	FAULTS "16-byte store across a page end", PF, 3, movups %xmm0, PAGE(2) + 0xff8
	CR2_IS "CR2 of the second page", PAGE(3)
	CHECK "no half of it was stored", test_pages + 0xff8, $0
	MAP 3, test_pages + 4096, (P | W | U)
	RUNS "store across a page end succeeds", mov %rax, PAGE(2) + 0xffc
	CHECK "low half in the first page", test_pages + 0xff8, $0x5566778800000000
	CHECK "high half in the second page", test_pages + 0x1000, $0x11223344
	mov $0x10, %edx
	RUNS "locked read-modify-write across a page end", lock addq %rdx, PAGE(2) + 0xffc
	CHECK "the locked sum", test_pages + 0xff8, $0x5566779800000000

	# PUSH, CALL, ENTER, POP: RSP is unchanged
	GATE64 PF, 0x8e, CODE64, (stubs64 + PF * 16), 1
	UNMAP 4
	TRY
	mov $PAGE(5), %esp
8701:	push %rax
	END_TRY
	EXPECT "PUSH to a page that is not present", PF, 2, 8701b
	CHECK "RSP after PUSH that faulted", fault_rsp, $PAGE(5)
	CR2_IS "CR2 of PUSH", PAGE(5)-8
	TRY
	mov $PAGE(5), %esp
8701:	call *%rax
	END_TRY
	EXPECT "CALL with a stack that is not present", PF, 2, 8701b
	CHECK "RSP after CALL that faulted", fault_rsp, $PAGE(5)
	TRY
	mov $PAGE(5), %esp
	mov $0x77, %ebp
8701:	enter $32, $0
	END_TRY
	EXPECT "ENTER with a stack that is not present", PF, 2, 8701b
	CHECK "RBP after ENTER that faulted", %rbp, $0x77
	TRY
	mov $PAGE(4), %esp
8701:	popq scratch
	END_TRY
	EXPECT "POP from a page that is not present", PF, 0, 8701b
	CHECK "RSP after POP that faulted", fault_rsp, $PAGE(4)
	TRY
	mov $PAGE(2), %esp
	movq $0x99, test_pages
8701:	popq PAGE(4)
	END_TRY
	EXPECT "POP to a page that is not present", PF, 2, 8701b
	CHECK "RSP after POP to memory that faulted", fault_rsp, $PAGE(2)
	TRY
	mov $PAGE(4), %ebp
8701:	leave
	END_TRY
	EXPECT "LEAVE with a stack that is not present", PF, 0, 8701b
	CHECK "RBP after LEAVE that faulted", %rbp, $PAGE(4)
	TRY
	mov $PAGE(4), %esp
8701:	ret $16
	END_TRY
	EXPECT "RET with a stack that is not present", PF, 0, 8701b
	CHECK "RSP after RET that faulted", fault_rsp, $PAGE(4)
	# POPF and IRET must not have changed flags or level
	TRY
	mov $PAGE(4), %esp
	stc
8701:	popfq
	END_TRY
	EXPECT "POPF with a stack that is not present", PF, 0, 8701b
	mov fault_flags, %rax
	and $FL_CF, %eax
	CHECK "CF is still set", %rax, $1
	MAP 4, test_pages, (P | W | U)
	UNMAP 5
	movq $8701f, test_pages + 0xfe8
	movq $CODE64, test_pages + 0xff0
	movq $2, test_pages + 0xff8
	TRY
	mov $PAGE(5) - 24, %esp
8701:	iretq
	END_TRY
	EXPECT "IRET whose stack ends in a page that is not present", PF, 0, 8701b
	CR2_IS "CR2 of IRET", PAGE(5)

	USUAL_GATE64 PF

	# Flags and registers of read-modify-write forms
	UNMAP 4
	mov $5, %ecx
	stc
	FAULTS "ADC to a page that is not present", PF, 2, adc %ecx, PAGE(4)
	mov $0xaaaa, %eax
	FAULTS "XADD to a page that is not present", PF, 2, xadd %eax, PAGE(4)
	CHECK "XADD left its register", %rax, $0xaaaa
	FAULTS "XCHG to a page that is not present", PF, 2, xchg %eax, PAGE(4)
	CHECK "XCHG left its register", %rax, $0xaaaa
	MAP 4, test_pages, (P | U)
	movl $0x1234, test_pages
	FAULTS "CMPXCHG that would not write, on a read-only page", PF, 3, cmpxchg %ecx, PAGE(4)
	CHECK "CMPXCHG left the accumulator", %rax, $0xaaaa
	FAULTS "SHL by zero on a read-only page", PF, 3, shll $0, PAGE(4)
	FAULTS "SETcc on a read-only page", PF, 3, setz PAGE(4)
	xor %edx, %edx
	FAULTS "DIV error comes after the load", PF, 0, divl PAGE(6)
	mov $0x55, %ebx
	FAULTS "CMOV loads even where it does not move", PF, 0, cmovo PAGE(6), %rbx
	CHECK "CMOV that faulted leaves 64 bits", %rbx, $0x55
	ret

# Repeated string instructions stop in the middle with counts and pointers of the next round (SDM Vol. 2B REP)
strings:
	MAP 6, test_pages, (P | W | U)
	MAP 7, test_pages + 0x1000, (P | W | U)
	UNMAP 8
	mov $0x4343434343434343, %rax
	mov $PAGE(7) + 0xff0, %edi
	mov $10, %ecx
	cld
	FAULTS "REP STOSQ into a page that is not present", PF, 2, rep stosq
	CHECK "rounds left of STOS", %rcx, $8
	CHECK "RDI of STOS", %rdi, $PAGE(8)
	CHECK "what was stored stays", test_pages + 0x1ff8, $0x4343434343434343
	CR2_IS "CR2 of STOS", PAGE(8)
	mov $PAGE(7) + 0xffc, %edi
	mov $10, %ecx
	FAULTS "REP STOSQ with a round across the page end", PF, 2, rep stosq
	CHECK "rounds left of STOS across", %rcx, $10
	CHECK "RDI of STOS across", %rdi, $PAGE(7) + 0xffc
	CR2_IS "CR2 of STOS across", PAGE(8)
	mov $test_pages, %esi
	mov $PAGE(7) + 0xffb, %edi
	mov $4096, %ecx
	FAULTS "REP MOVSB into a page that is not present", PF, 2, rep movsb
	CHECK "rounds left of MOVSB", %rcx, $4091
	CHECK "RSI of MOVSB", %rsi, $test_pages + 5
	CHECK "RDI of MOVSB", %rdi, $PAGE(8)
	mov $PAGE(7) + 0xff0, %esi
	mov $scratch, %edi
	mov $100, %ecx
	FAULTS "REP MOVSD from a page that is not present", PF, 0, rep movsl
	CHECK "rounds left of MOVSD", %rcx, $96
	CHECK "RSI of MOVSD", %rsi, $PAGE(8)
	CHECK "RDI of MOVSD", %rdi, $scratch + 16
	std
	UNMAP 5
	mov $PAGE(6) + 8, %edi
	mov $100, %ecx
	FAULTS "downward REP STOSQ into a page that is not present", PF, 2, rep stosq
	CHECK "rounds left downward", %rcx, $98
	CHECK "RDI downward", %rdi, $PAGE(6)-8
	CR2_IS "CR2 downward", PAGE(6)-8
	cld
	# A comparison that faults in the middle has the flags from before it (SDM Vol. 2B REP)
	movb $'a', test_pages + 0x1ffe
	movb $'a', test_pages + 0x1fff
	mov $'a', %eax
	mov $PAGE(7) + 0xffe, %edi
	mov $50, %ecx
	TRY
	test %esp, %esp
	stc
8701:	repe scasb
	END_TRY
	EXPECT "REPE SCASB into a page that is not present", PF, 0, 8701b
	CHECK "rounds left of SCASB", %rcx, $48
	mov fault_flags, %rax
	and $(FL_ZF | FL_CF), %eax
	CHECK "flags of SCASB that faulted", %rax, $FL_CF
	mov $PAGE(7) + 0xffe, %edi
	mov $PAGE(7) + 0xffe, %esi
	mov $50, %ecx
	FAULTS "REPE CMPSB into a page that is not present", PF, 0, repe cmpsb
	CHECK "rounds left of CMPSB", %rcx, $48
	xor %ecx, %ecx
	mov $PAGE(8), %edi
	RUNS "REP with a count of zero touches nothing", rep stosb
	mov $PAGE(7) + 0xffc, %esi
	mov $3, %ecx
	FAULTS "REP LODSD", PF, 0, rep lodsl
	CHECK "rounds left of LODSD", %rcx, $2
	# Destination before source or after: a MOVS whose source and destination both fault reports the source
	mov $PAGE(8), %esi
	mov $PAGE(8) + 64, %edi
	FAULTS "MOVS that faults on both sides", PF, 0, movsb
	# Resumed, the instruction completes: the handler maps the page and returns
	mov $PAGE(7), %edi
	mov $0x2000, %ecx
	mov $0x5a, %eax
	GATE64 PF, 0x8e, CODE64, map_and_return
	rep stosb
	USUAL_GATE64 PF
	CHECK "REP STOSB goes on after the page is mapped", %rcx, $0
	CHECK "its last byte", test_pages + 0x2ff8, $0x5a5a5a5a5a5a5a5a
	CHECK "RDI at its end", %rdi, $PAGE(9)
	ret

map_and_return:
	movl $(test_pages + 0x2000 + (P | W | U)), test_pt + 8 * 8
	add $8, %rsp
	iretq
