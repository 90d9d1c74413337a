// kexec KERNEL INITRD COMMAND-LINE: loads another kernel and goes to it (kexec_file_load(2), reboot(2)).

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **arguments) {
  if (count != 4) return 2;
  int kernel = open(arguments[1], O_RDONLY);
  int initrd = open(arguments[2], O_RDONLY);
  if (kernel < 0 || initrd < 0) {
    perror("kexec: open");
    return 1;
  }
  if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(arguments[3]) + 1, arguments[3], 0) != 0) {
    perror("kexec: kexec_file_load");
    return 1;
  }
  syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, 0);
  perror("kexec: reboot");
  return 1;
}
