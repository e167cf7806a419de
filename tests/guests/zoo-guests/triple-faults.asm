; Crashes on the press so hard that the processor resets.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  say "crash"
  lidt [no_handlers]
  int3
no_handlers:
  dw 0
  dd 0

  finish
