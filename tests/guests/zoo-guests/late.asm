; Boots for a while: only then it turns ACPI on and asks to be told of the button.
%include "zoo.inc"

  begin
  show "Starting Windows"
  say "up"
  count
more:
  sti
  hlt
  until DELAY, more
%ifdef MODE
  call forget_pages             ; turning ACPI on enters system management mode
%endif
  acpi_on
  button_on
  say "listening"
  wait_press
  power_off

  finish
