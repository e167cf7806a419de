; Turns ACPI on, and never asks to be told of the button: it has no driver for it (T5.5).
%include "zoo.inc"

  begin
  blank
  acpi_on
  say "up"
doze:
  sti
  hlt
  jmp doze

  finish
