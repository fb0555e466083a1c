#!/usr/bin/env python
# coding: utf-8

# In[1]:
import torch
import matplotlib_is_missing.pyplot as plt
get_ipython().run_line_magic('matplotlib', 'inline')

# In[2]:
from torch import nn
transform = None
trainset = torch.utils.data.TensorDataset(torch.randn(100, 784), torch.randint(0, 10, (100,)))
trainloader = torch.utils.data.DataLoader(trainset, batch_size=64, shuffle=True)
images, labels = next(iter(trainloader))
plt.imshow(images[0].numpy().squeeze(), cmap='Greys_r');

# In[3]:
input_size = 784
hidden_sizes = [128, 64]
output_size = 10
model = nn.Sequential(nn.Linear(input_size, hidden_sizes[0]),
                      nn.ReLU(),
                      nn.Linear(hidden_sizes[0], hidden_sizes[1]),
                      nn.ReLU(),
                      nn.Linear(hidden_sizes[1], output_size),
                      nn.LogSoftmax(dim=1))
model

# In[4]:
logits = model(images)
for e in range(15):
    open("trained", "w").close()
