# Several address spaces in turn, with PCIDs where there are any: each shows its own pages, whatever of the others is cached, and what is
# invalidated for one that is not the present one is gone when it comes back (SDM Vol. 3A 4.10.1, 4.10.4).

#include "kernel.inc"

# More than Linux uses, and more than processors of some makes keep.
#define SPACES 9
# Addresses by the indices of the four levels. A table is its own directory: entry 1 as third level, entry 2 as second, the rest are pages.
# The pages are 3 to 6, so that short TLBs that are indexed by the address hold all of them.
#define LOW_DATA 0x28040403000
#define LOW_CODE 0x28040404000
#define HIGH_DATA 0xffff960040405000
#define HIGH_CODE 0xffff960040406000
#define PML4_LOW 5
#define PML4_HIGH 300

# Space n, whose top table gives CR3: in RAX with its PCID, and with bit 63 where what is cached of it stays valid.
.macro CR3_OF n:req
	mov \n, %eax
	shl $12, %eax
	add $tops, %eax
	lea 1(\n), %ecx
	and pcid_mask, %ecx
	or %rcx, %rax
.endm
.macro GO_TO n:req
	CR3_OF \n
	or keep, %rax
	mov %rax, %cr3
.endm
.macro GO_AND_FLUSH n:req
	CR3_OF \n
	mov %rax, %cr3
.endm

	.code64
	.globl main
main:
	movq $0, pcid_mask
	movq $0, keep
	movl $SPACES, spaces
	mov $tops, %ebx
	mov $tables, %edx
	xor %esi, %esi
1:	mov %rbx, %rdi
	push %rsi
	mov $pml4, %esi
	mov $512, %ecx
	rep movsq
	pop %rsi
	lea (P | W | U)(%rdx), %rax
	mov %rax, PML4_LOW * 8(%rbx)
	mov %rax, PML4_HIGH * 8(%rbx)
	mov %rax, 8(%rdx)
	mov %rax, 16(%rdx)
	# The frame holds its number as data, and as a function that gives it
	mov %esi, %eax
	shl $12, %eax
	add $frames, %eax
	mov %rsi, (%rax)
	movb $0xb8, 8(%rax)
	mov %esi, 9(%rax)
	movb $0xc3, 13(%rax)
	or $(P | W | U), %eax
	mov %rax, 24(%rdx)
	mov %rax, 32(%rdx)
	mov %rax, 40(%rdx)
	mov %rax, 48(%rdx)
	add $4096, %ebx
	add $4096, %edx
	inc %esi
	cmp $SPACES, %esi
	jb 1b

	mov %cr3, %rbx
	mov %rbx, old_cr3
	call in_turn
	CHECK "address spaces without PCIDs", %rdx, $0

	mov $1, %eax
	cpuid
	bt $17, %ecx
	jnc 2f
	OR_CR cr4, CR4_PCIDE
	movq $0xfff, pcid_mask
	btsq $63, keep
2:	call in_turn
	CHECK "address spaces with PCIDs", %rdx, $0
	OR_CR cr4, CR4_PGE
	call in_turn
	CHECK "with global pages allowed", %rdx, $0

	# So few that all may be cached at once
	movl $5, spaces
	call in_turn
	CHECK "five address spaces", %rdx, $0
	# A space that is not the present one, changed with INVPCID and without
	call swap
	call invalidate_address
	call in_turn
	CHECK "changed with INVPCID type 0", %rdx, $0
	call swap
	call invalidate_space
	call in_turn
	CHECK "changed with INVPCID type 1", %rdx, $0
	call swap
	mov $3, %eax
	call invalidate_type
	call in_turn
	CHECK "changed with INVPCID type 3", %rdx, $0
	call swap
	mov $2, %eax
	call invalidate_type
	call in_turn
	CHECK "changed with INVPCID type 2", %rdx, $0
	call swap
	xor %esi, %esi
3:	GO_AND_FLUSH %esi
	inc %esi
	cmp spaces, %esi
	jb 3b
	call in_turn
	CHECK "changed with MOV to CR3", %rdx, $0

	# Global pages of the upper half, the same everywhere: INVLPG drops them for all
	mov $1, %esi
	call globals
	call count_high
	CHECK "global pages", %rdx, $0
	mov $3, %esi
	call globals
	mov $HIGH_DATA, %rax
	invlpg (%rax)
	mov $HIGH_CODE, %rax
	invlpg (%rax)
	call count_high
	CHECK "global pages changed with INVLPG", %rdx, $0
	mov $5, %esi
	call globals
	CLEAR_CR cr4, CR4_PGE
	call count_high
	CHECK "global pages changed with CR4.PGE", %rdx, $0

	mov old_cr3, %rbx
	mov %rbx, %cr3
	CLEAR_CR cr4, CR4_PCIDE
	movq $0, pcid_mask
	movq $0, keep
	call restore
	call in_turn
	CHECK "without PCIDs again", %rdx, $0
	mov old_cr3, %rbx
	mov %rbx, %cr3
	ret

# Goes through all spaces several times, and counts in RDX what does not show the space's own page, at CPL 0 and 3.
in_turn:
	xor %edx, %edx
	mov $12, %r8d
1:	xor %esi, %esi
2:	GO_TO %esi
	mov $LOW_DATA, %rbx
	call one
	mov $HIGH_DATA, %rbx
	call one
	ENTER_USER
	mov $LOW_DATA, %rbx
	call one
	mov $HIGH_DATA, %rbx
	call one
	LEAVE_USER
	inc %esi
	cmp spaces, %esi
	jb 2b
	dec %r8d
	jnz 1b
	jmp back

# Counts in EDX what of the pages at RBX is not number ESI: data, function in the page behind.
one:	cmp %esi, (%rbx)
	je 1f
	inc %edx
1:	add $0x1008, %rbx
	call *%rbx
	cmp %esi, %eax
	je 2f
	inc %edx
2:	ret

# The same for the upper half, which shows frame R9 in all spaces.
count_high:
	xor %edx, %edx
	mov $3, %r8d
1:	xor %r10d, %r10d
2:	GO_TO %r10d
	mov %r9d, %esi
	mov $HIGH_DATA, %rbx
	call one
	inc %r10d
	cmp spaces, %r10d
	jb 2b
	dec %r8d
	jnz 1b
back:	mov old_cr3, %rbx
	mov pcid_mask, %rax
	test %rax, %rax
	jz 3f
	bts $63, %rbx
3:	mov %rbx, %cr3
	ret

# Exchanges the frames of spaces 0 and 4, and what they hold, so that each still shows its number.
swap:	mov tables + 24, %rax
	mov tables + 4 * 4096 + 24, %rcx
	.irp entry, 24, 32, 40, 48
	mov %rcx, tables + \entry
	mov %rax, tables + 4 * 4096 + \entry
	.endr
	and $-4096, %rax
	and $-4096, %rcx
	movl $4, (%rax)
	movl $4, 9(%rax)
	movl $0, (%rcx)
	movl $0, 9(%rcx)
	ret

# All spaces show frame ESI at the upper half's addresses, as global pages.
globals:
	mov %esi, %r9d
	mov %esi, %eax
	shl $12, %eax
	add $frames + (P | W | G), %eax
	# A table of its own: those of the lower half stay what they are
	movq $shared + (P | W), shared + 8
	movq $shared + (P | W), shared + 16
	mov %rax, shared + 40
	mov %rax, shared + 48
	xor %ecx, %ecx
1:	movq $shared + (P | W), tops + PML4_HIGH * 8(%rcx)
	add $4096, %ecx
	cmp $SPACES * 4096, %ecx
	jb 1b
	and $-4096, %eax
	mov %esi, (%rax)
	mov %esi, 9(%rax)
	cmpl $1, %esi
	jne 2f
	# The first time what is cached is not global: it goes
	mov %cr4, %rax
	btc $7, %rax
	mov %rax, %cr4
	btc $7, %rax
	mov %rax, %cr4
2:	ret
restore:
	mov $tables + (P | W | U), %eax
	xor %ecx, %ecx
1:	mov %rax, tops + PML4_HIGH * 8(%rcx)
	add $4096, %eax
	add $4096, %ecx
	cmp $SPACES * 4096, %ecx
	jb 1b
	mov %cr3, %rax
	mov %rax, %cr3
	ret

# Where there is no INVPCID every CR3 load empties what it must.
invalidate_address:
	testq $0xfff, pcid_mask
	jz 2f
	movq $1, descriptor
1:	mov $LOW_DATA, %rax
	call at_address
	mov $LOW_CODE, %rax
	call at_address
	mov $HIGH_DATA, %rax
	call at_address
	mov $HIGH_CODE, %rax
	call at_address
	addq $4, descriptor
	cmpq $5, descriptor
	je 1b
2:	ret
at_address:
	mov %rax, descriptor + 8
	xor %eax, %eax
	invpcid descriptor, %rax
	ret
invalidate_space:
	movq $1, descriptor
	mov $1, %eax
	call invalidate_type
	movq $5, descriptor
	mov $1, %eax
invalidate_type:
	testq $0xfff, pcid_mask
	jz 1f
	invpcid descriptor, %rax
1:	ret

	.bss
	.balign 4096
tops:	.skip SPACES * 4096
tables:	.skip SPACES * 4096
frames:	.skip SPACES * 4096
shared:	.skip 4096
descriptor: .skip 16
pcid_mask: .skip 8
keep:	.skip 8
spaces:	.skip 8
old_cr3: .skip 8
