"""What makes a training trustworthy; hooks decide when."""
