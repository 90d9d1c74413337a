# Instructions that cross pages, and fetches that fault (SDM Vol. 3A 4.7, 6.15 #PF; 15-byte limit: Vol. 2A 2.3.11, Vol. 3A 6.15 #GP).

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)

# Puts a `mov $7, %eax; ret` so that `k` of its bytes lie in page 0 of the window, and calls it.
.macro ACROSS k:req
	movq $0, test_pages + 0xff8
	movq $0, test_pages + 0xff0
	lea test_pages + 0x1000 - \k, %rdi
	mov $code, %esi
	mov $6, %ecx
	rep movsb
.endm

	.code64
	.globl main
main:
	MAP 0, test_pages, (P | W | U)
	MAP 1, test_pages + 0x1000, (P | W | U)
	.irp k, 1, 2, 3, 4
	ACROSS \k
	xor %eax, %eax
	call PAGE(1)-\k
	CHECK "\k bytes in the first page", %rax, $7
	UNMAP 1
	TRY
	call PAGE(1)-\k
	END_TRY
	EXPECT "second page not present, \k bytes in the first", PF, 0x10, PAGE(1)-\k
	CHECK "CR2 is the start of the second page, \k", fault_cr2, $PAGE(1)
	MAP 1, test_pages + 0x1000, (P | W | U | NX)
	TRY
	call PAGE(1)-\k
	END_TRY
	EXPECT "second page with NX, \k bytes in the first", PF, 0x11, PAGE(1)-\k
	CHECK "CR2 of NX, \k", fault_cr2, $PAGE(1)
	MAP 1, test_pages + 0x1000, (P | W | U)
	xor %eax, %eax
	call PAGE(1)-\k
	CHECK "second page back, \k", %rax, $7
	.endr
	# An instruction that ends with the page does not touch the next one
	UNMAP 1
	movl $0x000007b8, test_pages + 0xffa
	movw $0xc300, test_pages + 0xffe
	xor %eax, %eax
	RUNS "RET as the last byte of a page", call PAGE(1)-6
	CHECK "its result", %rax, $7
	# A jump over the end needs nothing behind it; a branch not taken does
	movl $0x9090feeb, test_pages + 0xffc
	movw $0xfbeb, test_pages + 0xffe
	movb $0xc3, test_pages + 0xffb
	RUNS "JMP as the last instruction of a page", call PAGE(1)-2
	movw $0xfb74, test_pages + 0xffe
	TRY
	test %esp, %esp
	call PAGE(1)-2
	END_TRY
	EXPECT "branch not taken at the end of a page", PF, 0x10, PAGE(1)
	TRY
	xor %eax, %eax
	call PAGE(1)-2
	END_TRY
	CHECK "branch taken at the end of a page", fault_vector, $-1
	# What stands before is executed first
	movw $0xc0ff, test_pages + 0xffe
	xor %eax, %eax
	TRY
	call PAGE(1)-2
	END_TRY
	EXPECT "running into a page that is not present", PF, 0x10, PAGE(1)
	CHECK "the last instruction before was executed", %rax, $1
	# An undefined first byte: #UD comes from the bytes that are there
	movb $0x06, test_pages + 0xfff
	TRY
	call PAGE(1)-1
	END_TRY
	EXPECT "undefined byte at the end of a page", UD, NONE, PAGE(1)-1
	movw $0x0b0f, test_pages + 0xffe
	TRY
	call PAGE(1)-2
	END_TRY
	EXPECT "UD2 at the end of a page", UD, NONE, PAGE(1)-2
	# User and supervisor code in the same page
	MAP 1, test_pages + 0x1000, (P | W)
	ACROSS 2
	TRY
	ENTER_USER
	call PAGE(1)-2
	END_TRY
	EXPECT "second page is the supervisor's", PF, 0x15, PAGE(1)-2
	MAP 1, test_pages + 0x1000, (P | W | U)
	xor %eax, %eax
	call PAGE(1)-2
	CHECK "the supervisor may", %rax, $7
	# After the supervisor ran it, the user still may not
	MAP 1, test_pages + 0x1000, (P | W)
	call PAGE(1)-2
	TRY
	ENTER_USER
	call PAGE(1)-2
	END_TRY
	EXPECT "hot code of the supervisor", PF, 0x15, PAGE(1)-2
	# Code in hot pages whose mapping goes away
	MAP 0, test_pages, (P | W | U)
	movl $0x000009b8, test_pages
	movw $0xc300, test_pages + 4
	mov $100, %ecx
1:	call PAGE(0)
	dec %ecx
	jnz 1b
	UNMAP 0
	TRY
	call PAGE(0)
	END_TRY
	EXPECT "hot code unmapped", PF, 0x10, PAGE(0)
	MAP 0, test_pages, (P | W | U | NX)
	TRY
	call PAGE(0)
	END_TRY
	EXPECT "hot code with NX", PF, 0x11, PAGE(0)
	MAP 0, test_pages, (P | W | U)
	RUNS "hot code mapped again", call PAGE(0)

	# 15 bytes are the longest instruction
	.macro LONG name:req, prefixes:req, vector:req
	mov $scratch, %edi
	mov $0x26, %eax
	mov $\prefixes, %ecx
	rep stosb
	movw $0xc390, (%rdi)
	TRY
	call scratch
	END_TRY
	.if \vector >= 0
	EXPECT "\name", \vector, 0, scratch
	.else
	CHECK "\name", fault_vector, $-1
	.endif
	.endm
	LONG "instruction of 14 bytes", 13, -1
	LONG "instruction of 15 bytes", 14, -1
	LONG "instruction of 16 bytes", 15, GP
	LONG "instruction of 17 bytes", 16, GP
	LONG "hundred prefixes", 100, GP
	# Opcode of five bytes behind eleven prefixes
	mov $scratch, %edi
	mov $0x2e, %eax
	mov $11, %ecx
	rep stosb
	movl $0x000007b8, (%rdi)
	movw $0xc300, 4(%rdi)
	TRY
	call scratch
	END_TRY
	EXPECT "immediate beyond 15 bytes", GP, 0, scratch
	xor %eax, %eax
	RUNS "immediate up to 15 bytes", call scratch + 1
	CHECK "its immediate", %rax, $7
	# At the end of a page: 15 bytes of prefixes fault before the next page is looked at
	mov $test_pages + 0xff1, %edi
	mov $0x2e, %eax
	mov $15, %ecx
	rep stosb
	UNMAP 1
	TRY
	call PAGE(1)-15
	END_TRY
	EXPECT "15 prefixes up to the end of a page", GP, 0, PAGE(1)-15
	TRY
	call PAGE(1)-14
	END_TRY
	EXPECT "14 prefixes up to the end of a page", PF, 0x10, PAGE(1)-14
	ret

code:	mov $7, %eax
	ret
