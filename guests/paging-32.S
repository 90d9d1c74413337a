# 32-bit paging: 4-KByte and 4-MByte pages, PSE-36, rights, A and D bits, no NX (SDM Vol. 3A 4.3, 4.6, 4.7, 4.8).

#include "kernel.inc"

#define PAGE(n) (TEST + (n) * 4096)
#define BIG 0x40400000

# The window at TEST: a page table; the identity map of 8 MiB by 4-MByte pages; BIG: a 4-MByte page.
.macro MAP32 n:req, frame:req, flags:req
	movl $(\frame + \flags), test_pt + (\n) * 4
	invlpg TEST + (\n) * 4096
.endm
.macro MAP_BIG value:req
	movl $(\value), test_pd + (BIG >> 22) * 4
	invlpg BIG
.endm

	.code32
	.globl main32
main32:
	mov $test_pd, %edi
	xor %eax, %eax
	mov $1024, %ecx
	rep stosl
	movl $(P | W | U | PS), test_pd
	movl $(0x400000 + (P | W | U | PS)), test_pd + 4
	movl $(test_pt + (P | W | U)), test_pd + (TEST >> 22) * 4
	mov %cr4, %eax
	or $CR4_PSE, %eax
	mov %eax, %cr4
	mov $test_pd, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $(CR0_PG | CR0_WP), %eax
	mov %eax, %cr0
	jmp 1f
1:	CHECK32 "paging is on", $1, $1
	FAULTS32 "read of a page that is not present", PF, 0, mov PAGE(0) + 5, %al
	CHECK32 "CR2", fault_cr2, $PAGE(0) + 5
	FAULTS32 "write to a page that is not present", PF, 2, mov %al, PAGE(0)
	movl $0x1234, test_pages
	MAP32 0, test_pages, (P | W | U)
	CHECK32 "page of 4 KBytes", PAGE(0), $0x1234
	mov test_pt, %eax
	and $(A | D), %eax
	CHECK32 "a read sets A", %eax, $A
	movl $0x5678, PAGE(0)
	mov test_pt, %eax
	and $(A | D), %eax
	CHECK32 "a write sets D", %eax, $(A | D)
	mov test_pd + (TEST >> 22) * 4, %eax
	and $(A | D), %eax
	CHECK32 "A of the directory", %eax, $A
	MAP32 0, test_pages, P
	FAULTS32 "write to a read-only page", PF, 3, mov %al, PAGE(0)
	USER_FAULTS32 "user read of a supervisor page", PF, 5, mov PAGE(0), %al
	USER_FAULTS32 "user write to a supervisor page", PF, 7, mov %al, PAGE(0)
	MAP32 0, test_pages, (P | U)
	USER_RUNS32 "user read", mov PAGE(0), %al
	USER_FAULTS32 "user write to a read-only page", PF, 7, mov %al, PAGE(0)
	mov %cr0, %eax
	and $~CR0_WP, %eax
	mov %eax, %cr0
	RUNS32 "supervisor write without WP", movl $1, PAGE(0)
	or $CR0_WP, %eax
	mov %eax, %cr0
	FAULTS32 "supervisor write with WP", PF, 3, movl $1, PAGE(0)
	# Fetches are not told from reads: there is no NX and SMEP is off
	TRY32
	mov $PAGE(3), %eax
	call *%eax
	END_TRY32
	EXPECT32 "fetch from a page that is not present", PF, 0, PAGE(3)
	# Nothing is reserved in entries of 4-KByte pages
	MAP32 0, test_pages, (P | W | U | 0xe00 | G | PS)
	RUNS32 "PAT bit and bits for software", mov PAGE(0), %al

	# 4-MByte pages, with their physical address bits 39:32 in bits 20:13 (PSE-36)
	movl $0x4321, 0x412340
	MAP_BIG (0x400000 + (P | W | U | PS))
	CHECK32 "page of 4 MBytes", BIG + 0x12340, $0x4321
	movl $0x8765, BIG + 0x3ffffc
	CHECK32 "its end", 0x7ffffc, $0x8765
	mov test_pd + (BIG >> 22) * 4, %eax
	and $(A | D), %eax
	CHECK32 "A and D of it", %eax, $(A | D)
	# INVLPG of one address drops all of a 4-MByte page
	movl $0x77, 0x712344
	mov BIG + 0x312344, %eax
	movl $(P | W | U | PS), test_pd + (BIG >> 22) * 4
	movl $0x66, 0x312344
	invlpg BIG
	CHECK32 "INVLPG of a 4-MByte page", BIG + 0x312344, $0x66
	MAP_BIG (0x400000 + (P | W | U | PS | 0x1000))
	CHECK32 "PAT bit of it", BIG + 0x12340, $0x4321
	MAP_BIG (0x600000 + (P | W | U | PS))
	FAULTS32 "reserved bit 21", PF, 9, mov BIG, %al
	MAP_BIG (0x400000 + (P | PS))
	FAULTS32 "write to a read-only 4-MByte page", PF, 3, mov %al, BIG
	USER_FAULTS32 "user read of a supervisor 4-MByte page", PF, 5, mov BIG, %al
	# Without CR4.PSE the PS bit is ignored: the entry points to a table
	MAP_BIG (test_pt + (P | W | U | PS))
	# (the identity map needs PSE, so that this runs through page tables of its own)
	mov $identity_pd, %edi
	mov $(P | W | U), %eax
	mov $1024, %ecx
1:	stosl
	add $0x1000, %eax
	dec %ecx
	jnz 1b
	movl $(identity_pd + (P | W | U)), test_pd
	movl $0, test_pd + 4
	mov %cr3, %eax
	mov %eax, %cr3
	movl $0x99, test_pages
	movl $(test_pages + (P | W | U)), test_pt
	mov %cr4, %eax
	and $~CR4_PSE, %eax
	mov %eax, %cr4
	CHECK32 "PS without CR4.PSE", BIG, $0x99
	or $CR4_PSE, %eax
	mov %eax, %cr4
	MAP_BIG 0
	# A store across a page end, PUSH at a segment of pages
	MAP32 4, test_pages + 0x1000, (P | W | U)
	MAP32 5, test_pages, (P | W | U)
	movl $0x11223344, PAGE(5) - 2
	CHECK32 "store across pages that are apart", test_pages + 0x1ffc, $0x33440000
	mov test_pages, %eax
	movzwl %ax, %eax
	CHECK32 "its second half", %eax, $0x1122
	MAP32 5, test_pages, 0
	FAULTS32 "store across into a page that is not present", PF, 2, movl $0, PAGE(5) - 2
	CHECK32 "CR2 of it", fault_cr2, $PAGE(5)
	# Linear addresses wrap at 4 GiB
	mov $0xffffffff, %ebx
	mov 1(%ebx), %eax
	CHECK32 "effective addresses wrap", %eax, 0
	# Paging off again
	mov %cr0, %eax
	and $~CR0_PG, %eax
	mov %eax, %cr0
	CHECK32 "paging is off", test_pages + 0x1ffc, $0x33440000
	ret
