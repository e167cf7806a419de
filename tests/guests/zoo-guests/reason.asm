; Asks for the reason of the shutdown, and waits for a key (T5.2).
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  show "Shut Down Windows", 10, 10, "Choose a reason that best describes why", 10, \
       "you want to shut down this computer", 10, 10, "Other (Unplanned)"
wait_key:
  call idle
  mov ah, 1
  int 0x16
  jz wait_key
  power_off

  finish
