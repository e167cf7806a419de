; Asks to be told of the button, and then halts with interrupts off (T5.7): a press is never
; serviced.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
halted:
  cli
  hlt
  jmp halted

  finish
