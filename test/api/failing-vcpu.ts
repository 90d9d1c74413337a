// The thread of a vCPU that comes to grief.

throw new Error("out of luck");
