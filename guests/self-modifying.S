# Code that changes: a store is seen by the next instruction of the same processor at the same linear address (SDM Vol. 3A 8.1.3,
# 11.6 "Self-modifying code"); through another mapping, after a serializing instruction.

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)

# mov $imm, %eax is B8 imm32: its immediate is one byte further on.
	.code64
	.globl main
main:
	# The next instruction but one, within the running block
	mov $0, %edi
	movl $2, 1f + 1
1:	mov $1, %eax
	CHECK "store into the next instruction", %rax, $2
	movl $1, 1b + 1

	# The instruction that follows, hot: run often before it changes
	mov $1000, %ecx
	xor %ebx, %ebx
2:	mov %ecx, 3f + 1
3:	mov $0, %eax
	add %rax, %rbx
	dec %ecx
	jnz 2b
	CHECK "store into the next instruction of a loop", %rbx, $500500

	# A loop that changes an earlier part of itself
	movl $0, 4f + 1
	mov $100, %ecx
	xor %ebx, %ebx
4:	mov $0, %eax
	add %rax, %rbx
	incl 4b + 1
	dec %ecx
	jnz 4b
	CHECK "store into an earlier instruction of a loop", %rbx, $4950

	# A function that is rewritten between calls
	mov $scratch, %ebp
	movl $0x000001b8, (%rbp)
	movl $0x9090c300, 4(%rbp)
	xor %ebx, %ebx
	mov $200, %ecx
5:	call *%rbp
	add %rax, %rbx
	mov %ecx, 1(%rbp)
	dec %ecx
	jnz 5b
	CHECK "function rewritten between calls", %rbx, $20100

	# Opcode to a different length: mov $imm, %eax to mov $imm, %al and nops
	movl $0x000001b8, (%rbp)
	movl $0x0000c300, 4(%rbp)
	mov $-1, %eax
	call *%rbp
	CHECK "before", %rax, $1
	movl $0x9090c3b0, (%rbp)
	movb $0xc3, 4(%rbp)
	mov $0x1100, %eax
	call *%rbp
	CHECK "an instruction of another length", %rax, $0x11c3

	# One store over several instructions
	movl $0xc0ffc031, (%rbp)
	movl $0xc0ffc0ff, 4(%rbp)
	movb $0xc3, 8(%rbp)
	call *%rbp
	CHECK "three increments", %rax, $3
	movb $0xc3, 4(%rbp)
	call *%rbp
	CHECK "a byte becomes RET", %rax, $1

	# The running block, further on: the store comes first in a straight run
	mov $0x90, %eax
	xor %ebx, %ebx
	movb $0xc3, 6f
	call 7f
	CHECK "store far ahead in the same run", %rbx, $1
	movb $0x90, 6f
	xor %ebx, %ebx
	call 7f
	CHECK "and back", %rbx, $2
	jmp 8f
7:	inc %ebx
	nop
	nop
6:	nop
	inc %ebx
	ret
8:

	# By string instructions, into what comes right behind them
	mov $9f, %edi
	mov $10f, %esi
	mov $5, %ecx
	rep movsb
9:	mov $1, %eax
	CHECK "REP MOVSB into the next instruction", %rax, $0x77
	mov $9b, %edi
	mov $11f, %esi
	mov $5, %ecx
	rep movsb
	jmp 12f
10:	mov $0x77, %eax
11:	mov $1, %eax
12:	mov $13f, %edi
	mov $0x90, %eax
	mov $5, %ecx
	xor %ebx, %ebx
	rep stosb
13:	mov $0x55555555, %ebx
	CHECK "REP STOSB over the next instruction", %rbx, $0
	mov $14f, %edi
	mov $0xb8, %eax
	stosb
14:	mov $0x1234, %ebx
	CHECK "STOSB into the next opcode", %rax, $0x1234
	# Other kinds of stores
	movl $0x000001b8, (%rbp)
	movl $0x9090c300, 4(%rbp)
	call *%rbp
	movb $2, 1(%rbp)
	call *%rbp
	CHECK "byte store", %rax, $2
	incb 1(%rbp)
	call *%rbp
	CHECK "read-modify-write", %rax, $3
	mov $7, %eax
	lock xadd %al, 1(%rbp)
	call *%rbp
	CHECK "locked read-modify-write", %rax, $10
	mov $0xb8, %eax
	movq %rax, %xmm0
	movq $0xc30000002bb8, %rax
	mov %rax, scratch + 512
	movups scratch + 512, %xmm0
	movups %xmm0, (%rbp)
	call *%rbp
	CHECK "16-byte store", %rax, $0x2b
	mov $0xc30000003bb8, %rcx
	mov (%rbp), %rax
	xor %edx, %edx
	lock cmpxchg %rcx, (%rbp)
	call *%rbp
	CHECK "CMPXCHG", %rax, $0x3b
	mov $0xc30000004bb8, %rax
	mov %rsp, %rbx
	lea 8(%rbp), %rsp
	push %rax
	mov %rbx, %rsp
	call *%rbp
	CHECK "PUSH", %rax, $0x4b
	# A store of what stands there already
	mov (%rbp), %rax
	mov %rax, (%rbp)
	call *%rbp
	CHECK "store of the same bytes", %rax, $0x4b
	# A store beside the code, in its page
	movq $-1, 64(%rbp)
	call *%rbp
	CHECK "store beside the code", %rax, $0x4b

	# Across a page boundary: B8 at the end of one page, the immediate in the next
	movb $0xb8, scratch + 0xfff
	movl $0x11, scratch + 0x1000
	movb $0xc3, scratch + 0x1004
	mov $scratch + 0xfff, %ebp
	call *%rbp
	CHECK "instruction across a page end", %rax, $0x11
	movl $0x22, scratch + 0x1000
	call *%rbp
	CHECK "store into its second page", %rax, $0x22
	movb $0xbb, scratch + 0xfff
	xor %ebx, %ebx
	call *%rbp
	CHECK "store into its first page", %rbx, $0x22
	movb $0xb8, scratch + 0xfff
	call *%rbp
	movq $0x33, scratch + 0x1000
	movb $0xc3, scratch + 0x1004
	mov $0x44b8, %eax
	mov %ax, scratch + 0xfff
	call *%rbp
	CHECK "store across the page end", %rax, $0x44

	# Through a second mapping
	MAP 0, scratch, (P | W | U)
	MAP 1, scratch + 0x1000, (P | W | U)
	movl $0x000005b8, scratch
	movl $0x9090c300, scratch + 4
	mov $PAGE(0), %ebp
	call *%rbp
	CHECK "code in the window", %rax, $5
	movb $6, scratch + 1
	call *%rbp
	CHECK "store through another mapping", %rax, $6
	mov $scratch, %eax
	call *%rax
	CHECK "the other mapping", %rax, $6
	movb $7, PAGE(0) + 1
	mov $scratch, %eax
	call *%rax
	CHECK "store through the window", %rax, $7
	mov $PAGE(0) + 0xfff, %ebp
	call *%rbp
	CHECK "across the page end in the window", %rax, $0x44
	movl $0x66, scratch + 0x1000
	call *%rbp
	CHECK "store into its second frame", %rax, $0x66

	# Remapping: other frames under the same linear address
	movl $0x77, test_pages + 0x1000
	movb $0xc3, test_pages + 0x1004
	MAP 1, test_pages + 0x1000, (P | W | U)
	call *%rbp
	CHECK "second page remapped", %rax, $0x77
	movb $0xbb, test_pages + 0xfff
	MAP 0, test_pages, (P | W | U)
	xor %ebx, %ebx
	call *%rbp
	CHECK "first page remapped", %rbx, $0x77
	MAP 0, scratch, (P | W | U)
	call *%rbp
	CHECK "mapped back", %rax, $0x77
	# A loop that remaps the page it runs in: both frames hold the loop, with different constants
	mov $remap_loop, %esi
	mov $scratch, %edi
	mov $remap_end - remap_loop, %ecx
	rep movsb
	mov $remap_loop, %esi
	mov $test_pages, %edi
	mov $remap_end - remap_loop, %ecx
	rep movsb
	mov $remap_constant - remap_loop + 1, %eax
	movl $100, test_pages(%rax)
	mov $PAGE(0), %ebp
	mov $scratch + (P | W | U), %r8
	mov $test_pages + (P | W | U), %r9
	mov $10, %ecx
	xor %ebx, %ebx
	call *%rbp
	CHECK "loop that remaps its own page", %rbx, $505
	# Remapped between calls with MOV to CR3
	MAP 0, scratch, (P | W | U)
	movl $0x000001b8, scratch
	movl $0x9090c300, scratch + 4
	movl $0x000002b8, test_pages
	movl $0x9090c300, test_pages + 4
	mov $PAGE(0), %ebp
	xor %ebx, %ebx
	mov $50, %ecx
16:	call *%rbp
	add %eax, %ebx
	xchg %r8, %r9
	mov %r9, test_pt
	mov %cr3, %rax
	mov %rax, %cr3
	dec %ecx
	jnz 16b
	CHECK "remapped between calls", %rbx, $74

	movl $0x1234, patched + 1
	# A breakpoint put over hot code and taken away, as debuggers and live patching do
	mov $patched, %ebp
	mov $100, %ecx
17:	call *%rbp
	dec %ecx
	jnz 17b
	movb $0xcc, patched
	TRY
	call *%rbp
	END_TRY
	EXPECT "INT3 over the first byte", BP, NONE, patched + 1
	movb $0xb8, patched
	call *%rbp
	CHECK "taken away again", %rax, $0x1234
	# A call site rewritten: E8 rel32
	mov $100, %ecx
18:	call patch_site
	dec %ecx
	jnz 18b
	movl $target_b - (patch_site + 5), patch_site + 1
	call patch_site
	CHECK "call site rewritten", %rax, $0xb
	movl $target_a - (patch_site + 5), patch_site + 1
	call patch_site
	CHECK "and back again", %rax, $0xa
	# Many rewrites of one place: every one is seen
	mov $5000, %ecx
	xor %ebx, %ebx
19:	mov %ecx, patched + 1
	call patched
	cmp %eax, %ecx
	je 20f
	inc %ebx
20:	dec %ecx
	jnz 19b
	CHECK "five thousand rewrites, each seen", %rbx, $0
	ret

remap_loop:
	mov %r9, test_pt
	invlpg TEST
remap_constant:
	mov $1, %eax
	add %eax, %ebx
	xchg %r8, %r9
	dec %ecx
	jnz remap_loop
	ret
remap_end:

	.balign 64
patched:
	mov $0x1234, %eax
	ret
patch_site:
	call target_a
	ret
target_a:
	mov $0xa, %eax
	ret
target_b:
	mov $0xb, %eax
	ret
